#!/bin/sh
# Runs once in the stage that all images share: removes installers, setuid bits, and world-writable
# directories except /tmp from the base.
set -eu

rm -rf \
    /usr/local/bin/pip* /usr/bin/pip* \
    /usr/local/lib/python3*/site-packages/* /usr/lib/python3/dist-packages/pip* \
    /usr/local/lib/python3*/ensurepip /usr/lib/python3*/ensurepip /usr/share/python-wheels

find / -xdev -type f -perm /6000 -exec chmod ug-s {} +
find / -xdev ! -type l -perm -0002 ! -path /tmp ! -path '/tmp/*' -exec chmod o-w {} +

# A name for the user id: some libraries look it up.
echo 'dwcp-ml:x:65532:65532::/tmp:/usr/sbin/nologin' >>/etc/passwd
echo 'dwcp-ml:x:65532:' >>/etc/group
