//! What is read, what is not, and what becomes of it.

use super::*;

fn listens(port: u16) -> Option<Passive> {
    Some(Passive { port, addr: None })
}

#[test]
fn replies_to_pasv_and_epsv_name_a_port() {
    let line = b"227 Entering Passive Mode (10,1,0,11,200,13).";
    let read = passive(line).expect("a reply");
    let (addr, at) = read.addr.expect("an address");
    assert_eq!((addr, read.port), (Ipv4Addr::new(10, 1, 0, 11), 51213));
    assert_eq!(&line[at], b"10,1,0,11");
    assert_eq!(passive(b"227 =10,1,0,11,200,13").expect("a reply").port, 51213);
    assert_eq!(passive(b"229 Entering Extended Passive Mode (|||51214|)"), listens(51214));
    assert_eq!(passive(b"229 ok (!!!51214!)."), listens(51214));
}

#[test]
fn what_is_no_such_reply_is_none() {
    for line in [
        "227 Entering Passive Mode (10,1,0,11,200).",
        "227 Entering Passive Mode (10,1,0,256,200,13).",
        "227 Entering Passive Mode (10,1,0,11,3,255).",
        "227-Entering Passive Mode (10,1,0,11,200,13).",
        "227 none",
        "228 Entering (10,1,0,11,200,13)",
        "229 Entering Extended Passive Mode (|||1023|)",
        "229 Entering Extended Passive Mode (|||65536|)",
        "229 Entering Extended Passive Mode (|||+5000|)",
        "229 Entering Extended Passive Mode (||5000|)",
        "229 )(",
        "229 ()",
        "",
    ] {
        assert_eq!(passive(line.as_bytes()), None, "{line}");
    }
    assert_eq!(passive(b"227 \xff (10,1,0,11,200,13)"), None);
}

#[test]
fn port_and_eprt_name_an_address_and_a_port() {
    let v4 = Some((IpAddr::from([10, 0, 0, 2]), 50010));
    assert_eq!(active(b"PORT 10,0,0,2,195,90"), v4);
    assert_eq!(active(b"port 10,0,0,2,195,90 "), v4);
    assert_eq!(active(b"EPRT |1|10.0.0.2|50010|"), v4);
    let v6 = Some(("fd00::2".parse().expect("an address"), 50012));
    assert_eq!(active(b"eprt |2|fd00::2|50012|"), v6);
    for line in [
        "PORT 10,0,0,2,195,90,1",
        "PORT 10,0,0,2,195",
        "PORT 10,0,0,2,0,20",
        "EPRT |2|10.0.0.2|50010|",
        "EPRT |1|fd00::2|50010|",
        "EPRT |1|10.0.0.2|50010",
        "EPRT |1|10.0.0.2|80|",
        "EPRT |1|10.0.0.2|50010|1|",
        "EPRT ",
        "STOR PORT 10,0,0,2,195,90",
        "PORT",
    ] {
        assert_eq!(active(line.as_bytes()), None, "{line}");
    }
}

#[test]
fn only_complete_lines_count() {
    let places: Vec<_> = lines(b"one\r\n\r\nthree\nfour\r\nfive\r").collect();
    assert_eq!(places, [0..3, 5..5, 7..17]);
}

/// A line with another address.
fn changed(line: &str, new: [u8; 4]) -> Option<String> {
    let mut bytes = line.as_bytes().to_vec();
    let (_, at) = passive(&bytes).expect("a reply").addr.expect("an address");
    readdress(&mut bytes, &at, new.into()).then(|| String::from_utf8(bytes).expect("text"))
}

#[test]
fn the_words_make_room_for_the_address() {
    let line = "227 Entering Passive Mode (10,1,0,11,200,13).";
    let same = changed(line, [10, 9, 1, 12]);
    assert_eq!(same.as_deref(), Some("227 Entering Passive Mode (10,9,1,12,200,13)."));
    let shorter = changed(line, [10, 9, 1, 1]);
    assert_eq!(shorter.as_deref(), Some("227 Entering Passive Mode  (10,9,1,1,200,13)."));
    let longer = changed(line, [192, 168, 122, 22]);
    assert_eq!(longer.as_deref(), Some("227 Entering Passive (192,168,122,22,200,13)."));
    // Where there are none, the brackets do.
    let short = "227 (10,1,0,11,200,13)";
    let bare = changed(short, [192, 168, 1, 1]);
    assert_eq!(bare.as_deref(), Some("227 192,168,1,1,200,13"));
    let bare = changed("227 (10,1,0,11,200,13).", [192, 168, 1, 1]);
    assert_eq!(bare.as_deref(), Some("227  192,168,1,1,200,13"));
    assert_eq!(changed(short, [192, 168, 1, 10]), None);
    assert_eq!(changed("227 10,1,0,11,200,13", [192, 168, 1, 1]), None);
    assert_eq!(
        changed("227 =10,1,0,11,200,13", [10, 9, 1, 1]).as_deref(),
        Some("227  =10,9,1,1,200,13")
    );
}

proptest::proptest! {
    #[test]
    fn a_changed_line_is_as_long_and_names_the_new_address(
        words in "[A-Za-z ]{0,30}", open in "[(=]?", old: [u8; 4], new: [u8; 4], port in 1024u16..,
    ) {
        let [a, b, c, d] = old;
        let [high, low] = port.to_be_bytes();
        let line = format!("227 {words}{open}{a},{b},{c},{d},{high},{low}");
        if let Some(after) = changed(&line, new) {
            assert_eq!(after.len(), line.len());
            let read = passive(after.as_bytes()).expect("still a reply");
            assert_eq!(read.port, port);
            assert_eq!(read.addr.expect("an address").0, Ipv4Addr::from(new));
        }
    }

    #[test]
    fn no_bytes_are_too_odd(
        start in "(227 |229 |PORT |EPRT )?", mut bytes: Vec<u8>, from: usize, new: [u8; 4],
    ) {
        bytes.splice(0..0, start.bytes());
        for line in lines(&bytes).chain(std::iter::once(0..bytes.len())) {
            assert!(line.end <= bytes.len());
            let line = &bytes[line];
            active(line);
            if let Some((_, at)) = passive(line).and_then(|read| read.addr) {
                assert!(at.end <= line.len());
            }
        }
        let at = from % (bytes.len() + 1)..bytes.len();
        let len = bytes.len();
        readdress(&mut bytes, &at, new.into());
        assert_eq!(bytes.len(), len);
    }
}
