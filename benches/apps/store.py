"""Clients of redis: they fill it, then read as many read it, few values often and most rarely."""

import hashlib
import itertools
import random
import select
import socket
import subprocess
import time

BATCH = 128  # requests sent before their answers are read
CLIENTS = 50
SAMPLED = 64  # of so many values one is looked at when all are done
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


def get(i):
    return command(b"GET", b"key:%012d" % i)


class Store:
    """What redis is to hold, and what is asked of it: always the same for one size."""

    def __init__(self, size):
        rng = random.Random(17)
        self.count = count = max(size // BYTES, BATCH)
        self.noise = rng.randbytes(1 << 16)
        # Where a value is cut out of the noise, and its length.
        self.cuts = [(rng.randrange(1 << 15), rng.randrange(500, 1500)) for _ in range(count)]
        order = list(range(count))
        rng.shuffle(order)
        weights = itertools.accumulate((rank + 1) ** -EXPONENT for rank in range(count))
        self.chosen = rng.choices(order, cum_weights=list(weights), k=GETS * count)

    def value(self, i):
        start, length = self.cuts[i]
        return b"%012d" % i + self.noise[start : start + length]

    def fill(self, connection, digest):
        for at in range(0, self.count, BATCH):
            some = range(at, min(at + BATCH, self.count))
            sets = (command(b"SET", b"key:%012d" % i, self.value(i)) for i in some)
            connection.sendall(b"".join(sets))
            digest.update(receive(connection, len(some) * len(b"+OK\r\n")))

    def sample(self, connection, digest):
        for i in range(0, self.count, SAMPLED):
            connection.sendall(get(i))
            digest.update(receive(connection, len(bulk(self.value(i)))))


class Pipelined:
    """One connection, with many requests under way."""

    def __init__(self, store):
        # Made before anything is timed: the client is to be the quicker one.
        self.gets = []
        for at in range(0, len(store.chosen), BATCH):
            some = store.chosen[at : at + BATCH]
            length = sum(len(bulk(store.value(i))) for i in some)
            self.gets.append((b"".join(get(i) for i in some), length))

    def read(self, path, digest):
        connection = connect(path)
        for requests, length in self.gets:
            connection.sendall(requests)
            digest.update(receive(connection, length))
        connection.close()


class Clients:
    """Many connections with one request under way each, as of memtier_benchmark."""

    def __init__(self, store):
        self.store = store
        self.requests = [(get(i), i) for i in store.chosen]

    def read(self, path, digest):
        connections = {}
        ready = select.epoll()
        left = iter(self.requests)
        for connection in (connect(path) for _ in range(CLIENTS)):
            connections[connection.fileno()] = connection
            ready.register(connection, select.EPOLLIN)
        under_way = {}
        for number, connection in connections.items():
            self.ask(connection, number, left, under_way)
        while under_way:
            if not (heard := ready.poll(PATIENCE)):
                raise OSError("redis does not answer")
            for number, _ in heard:
                wanted, got = under_way[number]
                got += connections[number].recv(len(wanted) - len(got)) or end()
                if len(got) == len(wanted):
                    if got != wanted:
                        raise OSError("redis gave back another value")
                    self.ask(connections[number], number, left, under_way)
        # Which connection is answered when differs from run to run.
        digest.update(b"%d" % len(self.requests))
        for connection in connections.values():
            connection.close()

    def ask(self, connection, number, left, under_way):
        under_way.pop(number, None)
        for request, i in left:
            under_way[number] = bulk(self.store.value(i)), bytearray()
            connection.sendall(request)
            return


class Benchmark:
    """GETs of keys at random, by redis-benchmark, which does not say what it got."""

    def __init__(self, store):
        self.count = store.count

    def read(self, path, digest):
        line = ["redis-benchmark", "-s", path, "-t", "get"]
        line += ["-r", self.count, "-n", GETS * self.count]
        done = subprocess.run([str(word) for word in line], capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(f"redis-benchmark: {done.stderr or done.stdout}")


def use(store, clients, path):
    """Fills the redis at this socket and has clients read: seconds, and a digest of the answers."""
    connection = connect(path)
    digest = hashlib.sha256()
    begin = time.monotonic()
    store.fill(connection, digest)
    clients.read(path, digest)
    seconds = time.monotonic() - begin
    store.sample(connection, digest)
    connection.sendall(command(b"SHUTDOWN", b"NOSAVE"))
    connection.close()
    return seconds, digest.hexdigest()


def end():
    raise OSError("redis ended early")


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
            end()
        got += more
    return data
