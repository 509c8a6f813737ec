//! The command line as words: flags with their values, and what is neither. As popt, the library
//! that ipvsadm is built on, takes it apart.

use crate::Failure;
use crate::flags::{FLAGS, Flag, Value};

/// A flag as it was given.
#[derive(Debug)]
pub struct Given {
    /// Which.
    pub flag: &'static Flag,
    /// How it was written, for messages.
    pub text: String,
    /// Its value.
    pub value: Option<String>,
}

/// A command line.
#[derive(Debug, Default)]
pub struct Line {
    /// Flags, in order.
    pub given: Vec<Given>,
    /// Words that belong to no flag.
    pub rest: Vec<String>,
    /// What could not be taken apart, and what came of the line up to there.
    pub broken: Option<String>,
}

/// Takes the words apart, up to the first that is no option.
pub fn parse(words: &[String]) -> Line {
    let mut line = Line::default();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let step = if let Some(long) = word.strip_prefix("--").filter(|long| !long.is_empty()) {
            long_flag(&mut line, long, word, &mut words)
        } else if word.len() > 1 && word.starts_with('-') {
            short_flags(&mut line, word, &mut words)
        } else {
            line.rest.push(word.clone());
            Ok(())
        };
        if let Err(message) = step {
            line.broken = Some(message);
            break;
        }
    }
    line
}

type Words<'w> = std::iter::Peekable<std::slice::Iter<'w, String>>;

fn long_flag(line: &mut Line, long: &str, word: &str, words: &mut Words<'_>) -> Result<(), String> {
    let (name, attached) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (long, None),
    };
    let flag = FLAGS.iter().find(|flag| flag.long == name);
    let flag = flag.ok_or_else(|| format!("{word}: unknown option"))?;
    let value = value(flag, attached, word, words)?;
    line.given.push(Given { flag, text: word.to_owned(), value });
    Ok(())
}

fn short_flags(line: &mut Line, word: &str, words: &mut Words<'_>) -> Result<(), String> {
    for (at, letter) in word.char_indices().skip(1) {
        let text = format!("-{letter}");
        let flag = FLAGS.iter().find(|flag| flag.short == Some(letter));
        let flag = flag.ok_or_else(|| format!("-{letter}: unknown option"))?;
        if flag.value == Value::No {
            line.given.push(Given { flag, text, value: None });
            continue;
        }
        let rest = word.get(at + letter.len_utf8()..).filter(|rest| !rest.is_empty());
        let value = value(flag, rest, &text, words)?;
        line.given.push(Given { flag, text, value });
        break;
    }
    Ok(())
}

fn value(
    flag: &Flag,
    attached: Option<&str>,
    text: &str,
    words: &mut Words<'_>,
) -> Result<Option<String>, String> {
    match (flag.value, attached) {
        (Value::No, None) => Ok(None),
        (Value::No, Some(_)) => Err(format!("{text}: takes no value")),
        (_, Some(value)) => Ok(Some(value.to_owned())),
        (Value::Yes(_), None) => {
            words.next().cloned().map(Some).ok_or_else(|| format!("{text}: missing argument"))
        }
        (Value::Optional(_), None) => Ok(words.next_if(|word| !word.starts_with('-')).cloned()),
    }
}

/// Splits a line of a saved rules file into words; quotes hold words together.
pub fn words(line: &str) -> Result<Vec<String>, Failure> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Failure::usage("a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> (Vec<String>, Vec<Option<String>>, Option<String>) {
        let line = parse(&words(line).expect("balanced quotes"));
        let values = line.given.iter().map(|g| g.value.clone()).collect();
        (line.given.into_iter().map(|g| g.text).collect(), values, line.broken)
    }

    #[test]
    fn short_flags_combine_and_take_values_attached_or_apart() {
        assert_eq!(texts("-Lnc").0, ["-L", "-n", "-c"]);
        assert_eq!(
            texts("-A -t 1.2.3.4:80 -srr").1,
            [None, Some("1.2.3.4:80".into()), Some("rr".into())]
        );
    }

    #[test]
    fn an_optional_value_is_not_taken_from_the_next_option() {
        assert_eq!(texts("-A -p -s rr").1, [None, None, Some("rr".into())]);
        assert_eq!(texts("-A -p 50").1, [None, Some("50".into())]);
    }

    #[test]
    fn a_missing_value_and_an_unknown_option_are_told() {
        assert_eq!(texts("-A -t").2.as_deref(), Some("-t: missing argument"));
        assert_eq!(texts("-A -p -1").2.as_deref(), Some("-1: unknown option"));
    }
}
