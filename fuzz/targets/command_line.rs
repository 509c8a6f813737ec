//! Command lines, words split at newlines: whatever they say, they are a command or one line of
//! complaint with an exit code of ipvsadm's, and a command is the same when it is parsed again. To
//! be run where no name server can be reached (`fuzz/run` sees to that).
#![no_main]

use ipvsadm::command::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let words: Vec<&str> = text.split('\n').collect();
    match parse(&words) {
        Ok(parsed) => assert_eq!(parse(&words), Ok(parsed)),
        Err(failure) => {
            assert!(matches!(failure.code, 2 | 255), "{}", failure.code);
            assert!(!failure.message.is_empty());
        }
    }
});
