//! Where a SIP message has its Call-ID. Follows `ip_vs_pe_sip.c` and what it uses of
//! `nf_conntrack_sip.c` (RFC 3261 section 20.8, and the older line ends of RFC 2543): which texts it
//! takes and which it does not, its oddities included (`tests/oracle/recorded/pe_sip.jsonl`).
//!
//! One byte at a time, in one pass, so that a program without loops can be given the bytes:
//!
//! ```text
//!           ┌──────────────────── no such header ────────────────────┐
//!           ▼                                                        │
//!  SKIP ─► LINE ─end of line─► START ─► NAME ─► BLANK1 ':' ─► BLANK2 ─► WORD ['@' ─► HOST] ─end of line─► FOUND
//!   ▲                                              └──► anything else: FAILED ◄──┘       │
//!   └────────────────────────── nothing before or after '@' ─────────────────────────────┘
//! ```

/// Longest Call-ID that is taken, in bytes (`IP_VS_PEDATA_MAXLEN`).
pub const MAX_LEN: u32 = 255;

/// The header's name in lower case; its short form is `i`.
const NAME: [u8; 7] = *b"call-id";

/// States.
const SKIP: u32 = 0;
const LINE: u32 = 1;
/// Behind CR: the LF that belongs to it may follow.
const LINE_CR: u32 = 2;
const START: u32 = 3;
/// Within the name; `count` of its bytes are read.
const LONG: u32 = 4;
/// Behind `i`.
const SHORT: u32 = 5;
/// Blanks before (`BLANK`) and after (`BLANK` + `AFTER`) the colon, and a line that is continued.
const BLANK: u32 = 6;
const BLANK_CR: u32 = 7;
const FOLDED: u32 = 8;
const FOLDED_BLANK: u32 = 9;
const AFTER: u32 = 4;
/// Within the Call-ID, before and after its `@`.
const WORD: u32 = 14;
const HOST: u32 = 15;
/// A Call-ID was found.
const FOUND: u32 = 16;
/// There is none.
const FAILED: u32 = 17;

/// Looks for the Call-ID of a message whose bytes it is given in order.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    state: u32,
    /// Where the search goes on after a header that is no Call-ID.
    resume: u32,
    /// Where the Call-ID begins.
    start: u32,
    /// Bytes of the name, or of the part of the Call-ID, that are read.
    count: u32,
}

impl Parser {
    /// At the message's begin. `unknown` is [`Env::unknown`](crate::env::Env::unknown).
    #[inline(always)]
    pub fn new(unknown: impl Fn(u32) -> u32) -> Self {
        let [state, resume, start, count] = [LINE, 0, 0, 0].map(unknown);
        Self { state, resume, start, count }
    }

    /// Takes the byte at `offset`; false once there is no need for more.
    #[inline(always)]
    pub fn step(&mut self, offset: u32, byte: u8) -> bool {
        self.state = self.next(offset, byte);
        self.state < FOUND
    }

    /// Where the Call-ID begins and how long it is, 0 if there is none; `offset` is that of the byte
    /// that was taken last.
    #[inline(always)]
    pub const fn found(&self, offset: u32) -> (u32, u32) {
        if self.state == FOUND { (self.start, offset.wrapping_sub(self.start)) } else { (0, 0) }
    }

    #[inline(always)]
    fn next(&mut self, offset: u32, byte: u8) -> u32 {
        let blank = byte == b' ' || byte == b'\t';
        match self.state {
            SKIP if offset < self.resume => SKIP,
            SKIP | LINE => line(byte),
            LINE_CR if byte == b'\n' => START,
            LINE_CR | START => self.begin(byte),
            LONG => self.name(byte),
            SHORT if is_letter(byte) => LINE,
            // Behind the name, or the colon: what comes is the colon, or the Call-ID.
            SHORT | BLANK => match byte {
                _ if blank => BLANK,
                b'\r' => BLANK_CR,
                b'\n' => FOLDED,
                _ => colon(byte),
            },
            BLANK_CR if byte == b'\n' => FOLDED,
            BLANK_CR | FOLDED => {
                if blank {
                    FOLDED_BLANK
                } else {
                    FAILED
                }
            }
            FOLDED_BLANK => {
                if blank {
                    FOLDED_BLANK
                } else {
                    colon(byte)
                }
            }
            _ => self.value(offset, byte, blank),
        }
    }

    /// The first byte of a line.
    #[inline(always)]
    fn begin(&mut self, byte: u8) -> u32 {
        self.count = 1;
        match byte | 0x20 {
            b'c' => LONG,
            b'i' => SHORT,
            // Even an end of line: the line after an empty one is not looked at.
            _ => LINE,
        }
    }

    #[inline(always)]
    fn name(&mut self, byte: u8) -> u32 {
        let letter = if byte.is_ascii_uppercase() { byte | 0x20 } else { byte };
        if letter != byte_of(self.count) {
            return line(byte);
        }
        self.count += 1;
        if self.count == NAME.len() as u32 { BLANK } else { LONG }
    }

    /// Behind the colon.
    #[inline(always)]
    fn value(&mut self, offset: u32, byte: u8, blank: bool) -> u32 {
        const BLANK2: u32 = BLANK + AFTER;
        const BLANK2_CR: u32 = BLANK_CR + AFTER;
        const FOLDED2: u32 = FOLDED + AFTER;
        match self.state {
            BLANK2 => match byte {
                _ if blank => BLANK2,
                b'\r' => BLANK2_CR,
                b'\n' => FOLDED2,
                _ => self.first(offset, byte),
            },
            BLANK2_CR if byte == b'\n' => FOLDED2,
            BLANK2_CR | FOLDED2 => {
                if blank {
                    FOLDED_BLANK + AFTER
                } else {
                    FAILED
                }
            }
            WORD | HOST => self.part(offset, byte),
            _ => {
                if blank {
                    FOLDED_BLANK + AFTER
                } else {
                    self.first(offset, byte)
                }
            }
        }
    }

    /// The Call-ID's first byte.
    #[inline(always)]
    fn first(&mut self, offset: u32, byte: u8) -> u32 {
        (self.start, self.count) = (offset, 0);
        if is_word(byte) {
            self.count = 1;
            return WORD;
        }
        self.elsewhere(offset, byte)
    }

    #[inline(always)]
    fn part(&mut self, offset: u32, byte: u8) -> u32 {
        if is_word(byte) {
            self.count = 1;
            return self.state;
        }
        if self.state == WORD && byte == b'@' {
            self.count = 0;
            return HOST;
        }
        if self.count == 0 {
            return self.elsewhere(offset, byte);
        }
        let ends = byte == b'\r' || byte == b'\n';
        let fits = offset.wrapping_sub(self.start) <= MAX_LEN;
        if ends && fits { FOUND } else { FAILED }
    }

    /// This header has no Call-ID; the kernel goes on at the sum of all places where one should
    /// have been.
    #[inline(always)]
    fn elsewhere(&mut self, offset: u32, byte: u8) -> u32 {
        self.resume = self.resume.wrapping_add(self.start);
        if offset < self.resume { SKIP } else { line(byte) }
    }
}

/// Within a line that does not matter.
#[inline(always)]
const fn line(byte: u8) -> u32 {
    match byte {
        b'\r' => LINE_CR,
        b'\n' => START,
        _ => LINE,
    }
}

#[inline(always)]
const fn colon(byte: u8) -> u32 {
    if byte == b':' { BLANK + AFTER } else { FAILED }
}

/// The name's byte at `index`, without an array, which a program would have to look up.
#[inline(always)]
const fn byte_of(index: u32) -> u8 {
    (u64::from_le_bytes([NAME[0], NAME[1], NAME[2], NAME[3], NAME[4], NAME[5], NAME[6], 0])
        >> ((index & 7) * 8)) as u8
}

/// Letters of ISO 8859-1, as the kernel's `isalpha` has them.
#[inline(always)]
const fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte >= 0xc0 && byte != 0xd7 && byte != 0xf7
}

/// Bytes of a `word` of RFC 3261, and letters that are not ASCII.
#[inline(always)]
const fn is_word(byte: u8) -> bool {
    is_letter(byte)
        || byte.is_ascii_digit()
        || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
        || matches!(byte, b'(' | b')' | b'<' | b'>' | b':' | b'\\' | b'"' | b'/' | b'[' | b']')
        || matches!(byte, b'?' | b'{' | b'}')
}
