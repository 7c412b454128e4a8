# SPDX-License-Identifier: MIT
# memslot.bash - completion for memslot(1). Names come from the command itself.

_memslot_names() {
	memslot churn --list 2>/dev/null | awk -v part="$1" '
		/^[A-Z]/ { in_part = $1 == part; next }
		in_part { print $1 }'
}

# memslot run, trace, doctor: options, then a program, whose arguments are files to us.
_memslot_program() {
	local i
	for ((i = 2; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-* | =) ;;
		*) [[ ${COMP_WORDS[i - 1]} == = ]] || return 1 ;;
		esac
	done
	case "${COMP_WORDS[*]: -3}" in
	*'--thp =' | *'--thp = '*) mapfile -t COMPREPLY < <(compgen -W 'auto keep refuse' -- "${1#=}") ;;
	*'--children =' | *'--children = '*) mapfile -t COMPREPLY < <(compgen -W 'yes no' -- "${1#=}") ;;
	*) mapfile -t COMPREPLY < <(compgen -c -- "$1") ;;
	esac
}

_memslot() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
	local command=${COMP_WORDS[1]} words=
	COMPREPLY=()

	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W 'info image churn plan host lua duk ranges buffers serve load copy run doctor trace engines --help --version' -- "$word")
		return
	fi
	case $command:$before in
	image:image) words='build show verify' ;;
	churn:-w | churn:--workload) words="all $(_memslot_names Workloads)" ;;
	churn:-m | churn:--method) words="all slot $(_memslot_names Methods)" ;;
	churn:-r | churn:--reference) words="all none $(_memslot_names References)" ;;
	esac
	if [[ -z $words && $word == -* ]]; then
		case $command in
		info) words='--json --help' ;;
		image)
			case " ${COMP_WORDS[*]} " in
			*' build '*) words='--output --offset --base --note --progress --help' ;;
			*' show '*) words='--json --help' ;;
			*' verify '*) words='--progress --help' ;;
			*) words='--help' ;;
			esac
			;;
		churn) words='--workload --method --reference --threads --pool --slots --list --image-size --size
			--capacity --at --confined --no-confined --rounds --cycles --seconds --quick
			--json --progress --help' ;;
		host) words='--requests --threads --seed --slots --verify --json --help' ;;
		lua | duk) words='--requests --threads --json --save --open --once --help' ;;
		ranges) words='--arena --operations --rounds --seed --json --help' ;;
		buffers) words='--folder --only --rounds --json --help' ;;
		serve) words='--echo --port --listen --buffer-size --budget --connections --timeout
			--zero-copy --plain --json --help' ;;
		load) words='--files --connections --visits --pipeline --bytes --seed --json --help' ;;
		copy) words='--buffer-size --depth --check --plain --cached --compare --progress --json
			--help' ;;
		run) words='--trust-engine --slots --keep --budget --min --thp --children --no-aslr --stats --help' ;;
		trace) words='--min --stats --help' ;;
		doctor) words='--help' ;;
		engines) words='--engine --pages --memory --threads --alive --rounds --lives --one --check --help' ;;
		plan) words='--reserve --guard-before --guard-after --copy-budget --no-edge --json
			--help' ;;
		esac
	fi
	if [[ $command == @(run|trace|doctor) ]]; then
		if _memslot_program "$word"; then
			[[ -n $words ]] || return
		else
			words= # its own options
		fi
	fi
	if [[ -n $words ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
	else
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
	fi
}
complete -o filenames -F _memslot memslot
