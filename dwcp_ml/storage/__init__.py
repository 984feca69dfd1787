"""Read and write files where users and clusters keep them: one resolver for every address.

    /data/t.csv, file:///data/t.csv    a file of this machine, or of a volume that a pod mounts
    pvc://claim/t.csv                  the same on a claim, mounted at /mnt/pvc/<claim>
    s3://bucket/key                    s3fs;   pip install 'dwcp-ml[s3]'
    gs://bucket/key                    gcsfs;  pip install 'dwcp-ml[gs]'
    az://container/blob                adlfs;  pip install 'dwcp-ml[az]'
    https://account.blob.core.windows.net/container/blob    the same, as KServe writes it
    https://host/path, http://host/path    aiohttp; pip install 'dwcp-ml[http]'; read only

Credentials are taken from where each platform puts them, never from an address; see ``drivers``.

addresses       the forms of an address; pure
drivers         the library of each kind of store, and its settings
remote_objects  objects in a store: read, written once, listed, removed
fetch           local copies of remote files
partitions      the files of a data set: a directory, a prefix, a glob
"""
