"""The prediction log of the model server: its format, writer and readers.

log         the log as the server uses it
format      one line of the log, pure
segments    files of bounded size, and the quota over all of them
writer      the thread that writes
reader      reads segments: the whole log in order, or new records from a cursor
pairs       predictions of both arms for a request, joined by request id
divergence  the distance between two predictions for one instance, pure
"""
