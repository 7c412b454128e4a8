# SPDX-License-Identifier: MIT
# packages.sh - sourced by the scripts beside it: installs Debian packages that are missing.
#
# Invariant: where nothing is missing nothing is run as root, nothing is downloaded and nothing said.

# Is a package installed? Without dpkg nobody knows: the build will tell what it lacks.
has_package() {
	[[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == 'install ok installed' ]]
}

# Run as root, if that needs no question.
as_root() {
	if ((EUID == 0)); then
		"$@"
	else
		sudo -n "$@"
	fi
}

apt_install() {
	as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq -y --no-install-recommends install "$@"
}

# need_packages NAME...: returns 0 when all are there now.
need_packages() {
	local name log missing=()

	command -v dpkg-query >/dev/null || return 0
	for name in "$@"; do
		has_package "$name" || missing+=("$name")
	done
	((${#missing[@]})) || return 0
	if ((EUID != 0)) && ! sudo -n true 2>/dev/null; then
		echo "missing packages, and no root to install them: ${missing[*]}" >&2
		return 1
	fi
	echo "installing ${missing[*]}" >&2
	log=$(mktemp)
	if apt_install "${missing[@]}" >"$log" 2>&1 ||
		{ as_root apt-get -qq update >"$log" 2>&1 && apt_install "${missing[@]}" >>"$log" 2>&1; }; then
		rm -f "$log"
		return 0
	fi
	cat "$log" >&2
	rm -f "$log"
	return 1
}

# want_packages PATTERN...: the newest package of each pattern, where there is one; never a failure.
want_packages() {
	local pattern name

	command -v apt-cache >/dev/null || return 0
	for pattern in "$@"; do
		name=$(apt-cache pkgnames 2>/dev/null | grep -xE "$pattern" | sort -V | tail -n 1)
		[[ -z $name ]] || need_packages "$name" || true
	done
}
