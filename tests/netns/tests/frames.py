"""An end of a network that is nothing but a packet socket: "HEX" sends a frame's bytes from its EtherType on, "" shows what came since, IP packets as JSON.
 frames.py INTERFACE DESTINATION_MAC"""
import json, select, socket, sys

end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
end.bind((sys.argv[1], 3))
head = bytes.fromhex(sys.argv[2].replace(':', '')) + end.getsockname()[4]
for line in sys.stdin:
    if line.strip():
        end.send(head + bytes.fromhex(line.strip()))
        print('[]', flush=True)
        continue
    came = []
    while select.select([end], [], [], 0.05)[0]:
        frame, address = end.recvfrom(70000)
        # Not our own, and none of what IPv6 says to its neighbours.
        if address[2] != 4 and frame[12:14] in (b'\x08\0', b'\x86\xdd') and not (frame[12:14] == b'\x86\xdd' and frame[20] in (0, 58)):
            came.append(frame[14:].hex())
    print(json.dumps(came), flush=True)
