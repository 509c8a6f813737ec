//! The Call-ID of a message, looked for plainly, with all of the message at hand.

/// The Call-ID that the kernel finds.
pub fn call_id(text: &[u8]) -> Option<&[u8]> {
    let mut from = 0;
    loop {
        let start = value(text, from)?;
        let word = words(text, start);
        let mut end = start + word;
        let mut whole = word > 0;
        if whole && text.get(end) == Some(&b'@') {
            let host = words(text, end + 1);
            whole = host > 0;
            end += 1 + host;
        }
        if !whole {
            from += start;
            continue;
        }
        let fits = end - start <= 255;
        return (fits && is_end(text.get(end))).then(|| &text[start..end]);
    }
}

/// Where the value begins of the first header of this name that begins behind `from`.
fn value(text: &[u8], from: usize) -> Option<usize> {
    let mut from = from;
    loop {
        let rest = text.get(from..)?;
        let line = after_end(text, from + rest.iter().position(|byte| is_end(Some(byte)))?);
        let rest = text.get(line..)?;
        let long = rest.get(..7).is_some_and(|name| name.eq_ignore_ascii_case(b"call-id"));
        let short = matches!(rest, [b'i' | b'I', next, ..] if !is_letter(*next));
        if !long && !short {
            from = line + 1;
            continue;
        }
        let colon = after_blanks(text, line + if long { 7 } else { 1 })?;
        return if text.get(colon) == Some(&b':') { after_blanks(text, colon + 1) } else { None };
    }
}

fn after_end(text: &[u8], end: usize) -> usize {
    if text[end..].starts_with(b"\r\n") { end + 2 } else { end + 1 }
}

/// Past blanks, over the end of a line that goes on in the next one.
fn after_blanks(text: &[u8], from: usize) -> Option<usize> {
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let past = |at: usize| at + text.iter().skip(at).take_while(|byte| blank(byte)).count();
    let at = past(from);
    if !is_end(text.get(at)) {
        return Some(at);
    }
    let next = after_end(text, at);
    text.get(next).is_some_and(blank).then(|| past(next))
}

fn words(text: &[u8], from: usize) -> usize {
    let is_word = |byte: &u8| {
        is_letter(*byte) || byte.is_ascii_digit() || br#"-.!%*_+`'~()<>:\"/[]?{}"#.contains(byte)
    };
    text.iter().skip(from).take_while(|byte| is_word(byte)).count()
}

fn is_end(byte: Option<&u8>) -> bool {
    matches!(byte, Some(b'\r' | b'\n'))
}

fn is_letter(byte: u8) -> bool {
    char::from(byte).is_alphabetic() && !matches!(byte, 0xaa | 0xb5 | 0xba)
}
