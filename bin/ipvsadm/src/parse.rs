//! The command line as words: flags with their values, and what is neither. As popt, the library
//! that ipvsadm is built on, takes it apart.

use crate::flags::{FLAGS, Flag, Value};

/// A flag as it was given.
#[derive(Debug)]
pub struct Given {
    /// Which.
    pub flag: &'static Flag,
    /// The word that it was written in, for messages.
    pub word: String,
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
    /// Why it could not be taken apart further than this.
    pub broken: Option<String>,
}

/// Takes the words apart, up to the first that is no option of ours. After `--` nothing is a flag.
pub fn parse<S: AsRef<str>>(words: &[S]) -> Line {
    let mut line = Line::default();
    let mut words = Words(words.iter().map(AsRef::as_ref).collect(), 0);
    while let Some(word) = words.next() {
        let step = match word.strip_prefix("--") {
            Some("") => {
                line.rest.extend(std::iter::from_fn(|| words.next()).map(str::to_owned));
                break;
            }
            Some(long) => long_flag(&mut line, long, word, &mut words),
            None if word.len() > 1 && word.starts_with('-') => {
                short_flags(&mut line, word, &mut words)
            }
            None => {
                line.rest.push(word.to_owned());
                Ok(())
            }
        };
        if let Err(message) = step {
            line.broken = Some(message);
            break;
        }
    }
    line
}

/// Words and how many are taken.
struct Words<'w>(Vec<&'w str>, usize);

impl<'w> Words<'w> {
    fn next(&mut self) -> Option<&'w str> {
        let word = self.0.get(self.1)?;
        self.1 += 1;
        Some(word)
    }

    fn next_if(&mut self, wanted: impl Fn(&str) -> bool) -> Option<&'w str> {
        let word = self.0.get(self.1).filter(|word| wanted(word))?;
        self.1 += 1;
        Some(word)
    }
}

fn long_flag(line: &mut Line, long: &str, word: &str, words: &mut Words<'_>) -> Result<(), String> {
    let (name, attached) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (long, None),
    };
    let flag = FLAGS.iter().find(|flag| flag.long == name);
    let flag = flag.ok_or_else(|| format!("{word}: unknown option"))?;
    let value = value(flag, attached, word, words)?;
    line.given.push(Given { flag, word: word.to_owned(), value });
    Ok(())
}

fn short_flags(line: &mut Line, word: &str, words: &mut Words<'_>) -> Result<(), String> {
    for (at, letter) in word.char_indices().skip(1) {
        let flag = FLAGS.iter().find(|flag| flag.short == Some(letter));
        let flag = flag.ok_or_else(|| format!("{word}: unknown option"))?;
        let word = word.to_owned();
        if flag.value == Value::No {
            line.given.push(Given { flag, word, value: None });
            continue;
        }
        let rest = word.get(at + letter.len_utf8()..).filter(|rest| !rest.is_empty());
        // `-s=rr` is `-s rr`.
        let rest = rest.map(|rest| rest.strip_prefix('=').unwrap_or(rest));
        let value = value(flag, rest, &format!("-{letter}"), words)?;
        line.given.push(Given { flag, word, value });
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
    let taken = match (flag.value, attached) {
        (Value::No, None) => return Ok(None),
        (Value::No, Some(_)) => return Err(format!("{text}: option does not take an argument")),
        (_, Some(value)) => Some(value),
        (Value::Yes(_), None) => {
            Some(words.next().ok_or_else(|| format!("{text}: missing argument"))?)
        }
        (Value::Optional(_), None) => words.next_if(|word| !word.starts_with('-')),
    };
    Ok(taken.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(line: &str) -> (Vec<char>, Vec<Option<String>>, Option<String>) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let line = parse(&words);
        let values = line.given.iter().map(|g| g.value.clone()).collect();
        (line.given.iter().filter_map(|g| g.flag.short).collect(), values, line.broken)
    }

    #[test]
    fn short_flags_combine_and_take_values_attached_or_apart() {
        assert_eq!(taken("-Lnc").0, ['L', 'n', 'c']);
        for line in ["-A -t 1.2.3.4:80 -srr", "-A -t 1.2.3.4:80 -s=rr", "-At1.2.3.4:80 -s rr"] {
            assert_eq!(taken(line).1, [None, Some("1.2.3.4:80".into()), Some("rr".into())]);
        }
    }

    #[test]
    fn an_optional_value_is_not_taken_from_the_next_option() {
        assert_eq!(taken("-A -p -s rr").1, [None, None, Some("rr".into())]);
        assert_eq!(taken("-A -p 50").1, [None, Some("50".into())]);
        assert_eq!(taken("-A -p50").1, [None, Some("50".into())]);
    }

    #[test]
    fn a_missing_value_and_an_unknown_option_are_told() {
        assert_eq!(taken("-A -t").2.as_deref(), Some("-t: missing argument"));
        assert_eq!(taken("-A -p -1").2.as_deref(), Some("-1: unknown option"));
    }

    #[test]
    fn nothing_is_a_flag_after_two_dashes() {
        assert_eq!(parse(&["-L", "--", "-n"]).rest, ["-n"]);
    }
}
