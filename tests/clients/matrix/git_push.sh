#!/usr/bin/env bash
# A commit that is pushed to an empty repository and cloned from it again.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
git init --quiet --initial-branch=main here
cd here
git -c user.name=a -c user.email=a@example.com commit --quiet --allow-empty --message='an intro'
git push --quiet "$1" main
git clone --quiet --branch main "$1" "$work/there"

# Git shows no answer's head: what it pushed and got is its id.
if [ "$(git rev-parse main)" != "$(git -C "$work/there" rev-parse main)" ]; then
    echo "what was cloned is not what was pushed" >&2
    exit 1
fi
printf '{"client": "git", "status": 200, "id": "%s"}\n' "$(git rev-parse main)"
