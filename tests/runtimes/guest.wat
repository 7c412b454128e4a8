;; SPDX-License-Identifier: MIT
;; What tests/runtimes.py has wasm2c translate: a memory, a load, a store.
(module
  (memory (export "memory") 16)
  (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
  (func (export "store") (param i32 i32) (i32.store (local.get 0) (local.get 1))))
