"""A client of redis: fills it, then reads as many read it, few values often and most rarely."""

import hashlib
import itertools
import random
import socket
import time

BATCH = 128  # requests sent before their answers are read
EXPONENT = 0.99  # of Zipf's law
BYTES = 1250  # what a value takes in redis, on the average
GETS = 2  # for each value
PATIENCE = 300.0  # seconds for one batch


def command(*words):
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts.append(bulk(word))
    return b"".join(parts)


def bulk(word):
    return b"$%d\r\n%s\r\n" % (len(word), word)


class Store:
    """What redis is to hold, and what is asked of it: always the same for one size."""

    def __init__(self, size):
        rng = random.Random(17)
        count = max(size // BYTES, BATCH)
        self.noise = rng.randbytes(1 << 16)
        # Where a value is cut out of the noise, and its length.
        self.cuts = [(rng.randrange(1 << 15), rng.randrange(500, 1500)) for _ in range(count)]
        order = list(range(count))
        rng.shuffle(order)
        weights = itertools.accumulate((rank + 1) ** -EXPONENT for rank in range(count))
        chosen = rng.choices(order, cum_weights=list(weights), k=GETS * count)
        # Made before anything is timed: the client is to be the quicker one.
        self.gets = []
        for at in range(0, len(chosen), BATCH):
            some = chosen[at : at + BATCH]
            requests = b"".join(command(b"GET", b"key:%012d" % i) for i in some)
            self.gets.append((requests, sum(len(bulk(self.value(i))) for i in some)))

    def value(self, i):
        start, length = self.cuts[i]
        return b"%012d" % i + self.noise[start : start + length]

    def use(self, path):
        """Fills the redis at this socket and reads: seconds, and a digest of the answers."""
        connection = connect(path)
        digest = hashlib.sha256()
        begin = time.monotonic()
        for at in range(0, len(self.cuts), BATCH):
            some = range(at, min(at + BATCH, len(self.cuts)))
            sets = (command(b"SET", b"key:%012d" % i, self.value(i)) for i in some)
            connection.sendall(b"".join(sets))
            digest.update(receive(connection, len(some) * len(b"+OK\r\n")))
        for requests, length in self.gets:
            connection.sendall(requests)
            digest.update(receive(connection, length))
        seconds = time.monotonic() - begin
        connection.sendall(command(b"SHUTDOWN", b"NOSAVE"))
        connection.close()
        return seconds, digest.hexdigest()


def connect(path):
    deadline = time.monotonic() + 60
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(path)
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def receive(connection, length):
    """So many bytes; fewer when redis ends."""
    data = bytearray(length)
    view = memoryview(data)
    got = 0
    while got < length:
        more = connection.recv_into(view[got:])
        if more == 0:
            raise OSError("redis ended early")
        got += more
    return data
