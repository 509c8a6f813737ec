"""Sends a UDP datagram, or a flood, in fragments of its own making from AF_PACKET, and waits for the echo.
 fragments.py echo SOURCE TARGET PORT SIZE ORDER MAC     ORDER: in-order, reversed, shuffled, twice
 fragments.py flood SOURCE TARGET COUNT MAC              first-less fragments, half of them from other sources"""
import random, socket, struct, sys


def checksum(data):
    data += b'\0' * (len(data) & 1)
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def raw(address):
    return socket.inet_pton(socket.AF_INET6 if ':' in address else socket.AF_INET, address)


def fragment(source, target, ident, offset, more, data):
    if len(source) == 16:
        header = struct.pack('!BBHI', 17, 0, offset | more, ident)
        return struct.pack('!IHBB', 6 << 28, len(data) + 8, 44, 64) + source + target + header + data
    header = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(data), ident & 0xffff, more << 13 | offset // 8, 64, 17, 0)
    header += source + target
    return header[:10] + struct.pack('!H', checksum(header)) + header[12:] + data


def link(mac, six):
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sender.bind(('eth0', 0))
    kind = b'\x86\xdd' if six else b'\x08\0'
    ethernet = bytes.fromhex(mac.replace(':', '')) + sender.getsockname()[4] + kind
    return lambda packet: sender.send(ethernet + packet)


def echo(source, target, port, size, order, mac):
    six = ':' in source
    listener = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((source, 0))
    listener.settimeout(8)
    own = listener.getsockname()[1]
    payload = random.randbytes(int(size))
    datagram = struct.pack('!HHHH', own, int(port), 8 + len(payload), 0) + payload
    s, t = raw(source), raw(target)
    pseudo = s + t + struct.pack('!IHBB', len(datagram), 0, 0, 17)
    datagram = datagram[:6] + struct.pack('!H', checksum(pseudo + datagram) or 0xffff) + datagram[8:]
    ident, room = random.getrandbits(32), 1400
    pieces = [fragment(s, t, ident, at, int(at + room < len(datagram)), datagram[at:at + room])
              for at in range(0, len(datagram), room)]
    if order == 'reversed':
        pieces.reverse()
    elif order == 'shuffled':
        random.shuffle(pieces)
    elif order == 'twice':
        pieces = [piece for piece in pieces for _ in range(2)]
    send = link(mac, six)
    for piece in pieces:
        send(piece)
    answer, sender = listener.recvfrom(65536)
    print('echoed' if answer.endswith(payload) and sender[0] == target else 'wrong', len(pieces))


def flood(source, target, count, mac):
    send = link(mac, False)
    for number in range(int(count)):
        s = raw(source) if number % 2 else bytes([198, 18]) + random.randbytes(2)
        send(fragment(s, raw(target), number // 2, 1400, 1, bytes(1400)))
    print('sent', count)


{'echo': echo, 'flood': flood}[sys.argv[1]](*sys.argv[2:])
