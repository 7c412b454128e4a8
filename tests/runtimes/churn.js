// SPDX-License-Identifier: MIT
// Instances of many sizes in Node or in SpiderMonkey's shell: every memory must begin as zeros, every
// access behind its end must trap, also where a larger one lay before. Prints what went wrong.
'use strict';
const say = typeof console === 'object' ? console.log : print;
const collect = globalThis.gc || (() => {});
// (module (import "m" "m" (memory 1)) (func (export "load") ...) (func (export "store") ...))
const code = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 11, 2, 96, 1, 127, 1, 127, 96, 2, 127,
	127, 0, 2, 8, 1, 1, 109, 1, 109, 2, 0, 1, 3, 3, 2, 0, 1, 7, 16, 2, 4, 108, 111, 97, 100, 0, 0,
	5, 115, 116, 111, 114, 101, 0, 1, 10, 19, 2, 7, 0, 32, 0, 40, 2, 0, 11, 9, 0, 32, 0, 32, 1, 54,
	2, 0, 11]);
const wasm = new WebAssembly.Module(code);
const PAGE = 65536;
let stale = 0, missed = 0, traps = 0, lives = 0;

function traps_at(call, at) {
	traps++;
	try {
		call(at, 1);
	} catch (error) {
		return error instanceof WebAssembly.RuntimeError;
	}
	return false;
}

function live(pages, grow) {
	const memory = new WebAssembly.Memory({initial: pages, maximum: 256});
	const {load, store} = new WebAssembly.Instance(wasm, {m: {m: memory}}).exports;
	let words = new Uint32Array(memory.buffer);
	for (let at = 0; at < words.length; at += 61)
		stale += words[at] !== 0;
	words.fill(0x5a5a5a5a);
	missed += !traps_at(load, pages * PAGE) || !traps_at(store, pages * PAGE - 3) ||
		!traps_at(load, 200 * PAGE) || !traps_at(store, -4);
	if (grow) {
		memory.grow(grow);
		words = new Uint32Array(memory.buffer);
		for (let at = pages * PAGE / 4; at < words.length; at += 61)
			stale += words[at] !== 0;
		stale += words[0] !== 0x5a5a5a5a;
		words.fill(0x6b6b6b6b);
		missed += !traps_at(load, (pages + grow) * PAGE);
	}
	stale += load(0) === 0;
	lives++;
}

function churn(count) {
	for (let i = 0; i < count; i++) {
		live(i % 10 === 0 ? 64 : 1 + i % 7, i % 3 === 0 ? 1 + i % 5 : 0);
		if (i % 100 === 99)
			collect();
	}
}

if (typeof require === 'function' && process.argv[2] === 'workers') {
	const {Worker, isMainThread, parentPort} = require('worker_threads');
	if (isMainThread) {
		let left = 4;
		for (let i = 0; i < 4; i++) {
			const worker = new Worker(__filename, {argv: ['workers']});
			worker.on('message', line => say(line));
			worker.on('exit', status => say('worker ended ' + status + ' ' + --left));
		}
	} else {
		churn(250);
		parentPort.postMessage(`lives ${lives} stale ${stale} missed ${missed} of ${traps}`);
	}
} else {
	churn(1000);
	say(`lives ${lives} stale ${stale} missed ${missed} of ${traps}`);
}
