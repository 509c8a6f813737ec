"""A client on this host that is nothing but raw sockets: "HEX" sends an IP packet, an error's name as JSON if that fails; "" shows what the host
would have given to a socket since."""
import errno, json, select, socket, sys

out = {family: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) for family in (socket.AF_INET, socket.AF_INET6)}
ins = [socket.socket(family, socket.SOCK_RAW, protocol) for family in out for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP)]
for line in sys.stdin:
    answer = []
    if line.strip():
        packet = bytes.fromhex(line.strip())
        family, to = (socket.AF_INET6, packet[24:40]) if packet[0] >> 4 == 6 else (socket.AF_INET, packet[16:20])
        try:
            out[family].sendto(packet, (socket.inet_ntop(family, to), 0))
        except OSError as error:
            answer.append(errno.errorcode[error.errno])
    else:
        while ready := select.select(ins, [], [], 0.05)[0]:
            for end in ready:
                packet, address = end.recvfrom(70000)
                if end.family == socket.AF_INET:
                    packet = packet[(packet[0] & 15) * 4:]
                what = 'udp' if end.proto == socket.IPPROTO_UDP else ''.join(name for name, bit in (('S', 2), ('F', 1), ('R', 4), ('A', 16)) if packet[13] & bit)
                answer.append('%s %d > %d %s' % (address[0], int.from_bytes(packet[:2], 'big'), int.from_bytes(packet[2:4], 'big'), what))
    print(json.dumps(answer), flush=True)
