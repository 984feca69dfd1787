#!/bin/sh
# Run by the Containerfile's build stages; it is in no image. One of
#
#   environment.sh tools             /build/tools: pip of the base, and the tools that build wheels
#   environment.sh libraries         /opt/dwcp-ml: exactly the packages of /build/requirements.lock
#   environment.sh project VERSION   /opt/dwcp-ml: this project alone, from the current directory
#
# Every download is compared with the hash in a lock file. If /wheels has wheels, packages come only
# from there, else from the index of pip's settings.
set -eu

pip=/build/tools/bin/pip
gathered=$(mktemp -d)

# Set `from` to pip's options for the source of packages.
find_source() {
    from=
    for file in /wheels/*.whl; do
        [ ! -e "$file" ] || from="--no-index --find-links=/wheels"
        break
    done
    echo "packages come from ${from:-the index in the settings of pip}"
}

# gather LOCK: put every package of the lock file into $gathered as a wheel. Packages that are
# published as source only are built here, with the tools of requirements-build.lock.
gather() {
    find_source
    # shellcheck disable=SC2086
    $pip wheel --quiet --require-hashes --no-deps --no-build-isolation --use-pep517 $from \
        --wheel-dir "$gathered" --requirement "$1"
}

# fill DIRECTORY: create an environment without an installer from the gathered wheels.
fill() {
    python3 -m venv --without-pip "$1"
    $pip --python "$1/bin/python" install --quiet --no-index --no-deps --compile "$gathered"/*.whl
    rm -rf "$gathered" "$1"/bin/*ctivate*
}

case $1 in
tools)
    python3 -m venv /build/tools
    find_source
    # shellcheck disable=SC2086
    $pip install --quiet --require-hashes --no-deps --only-binary :all: $from \
        --requirement /build/requirements-build.lock
    ;;
libraries)
    gather /build/requirements.lock
    fill /opt/dwcp-ml
    # Checks that every requirement of every package is met.
    $pip --python /opt/dwcp-ml/bin/python check
    # Headers to compile against (TensorFlow's are 290 MB), and the libraries' own tests.
    cd /opt/dwcp-ml/lib/python3*/site-packages
    find . -maxdepth 2 -type d -name include -prune -exec rm -rf {} +
    find . -type d -name tests -prune -exec rm -rf {} +
    ;;
project)
    $pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir "$gathered" .
    if [ ! -e "$gathered/dwcp_ml-$2-py3-none-any.whl" ]; then
        echo "VERSION=$2 is not the version of this checkout, which built $(ls "$gathered")." >&2
        exit 1
    fi
    fill /opt/dwcp-ml
    ;;
*)
    echo "environment.sh: unknown command $1: expected tools, libraries or project." >&2
    exit 2
    ;;
esac
