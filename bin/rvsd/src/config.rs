//! The configuration file, rvsd.conf(5): TOML with rules that mark packets, `marks`, and a table
//! `[sysctl]`. It is checked as a whole before anything is done.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rvs_core::control::Datapath;
use rvs_core::layout::{MARK_RULES, MarkRule};
use rvs_director::Director;
use serde::Deserialize;

/// What the file says, checked.
#[derive(Debug, Default)]
pub struct Config {
    settings: BTreeMap<String, String>,
    /// In place of the rules that there are; `None` leaves them.
    marks: Option<Vec<MarkRule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    marks: Option<Vec<String>>,
    #[serde(default)]
    sysctl: BTreeMap<String, Value>,
}

/// A setting's value: a number, or text as it is written to the kernel's file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Number(i64),
    Text(String),
}

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not valid", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let file: File = toml::from_str(text)?;
        let mut settings = BTreeMap::new();
        for (name, value) in file.sysctl {
            let value = match value {
                Value::Number(number) => number.to_string(),
                Value::Text(text) => text,
            };
            if let Err(refusal) = rvs_director::check_setting(&name, &value) {
                bail!("[sysctl]: {}", refusal.message);
            }
            settings.insert(name, value);
        }
        Ok(Self { settings, marks: file.marks.map(|lines| rules(&lines)).transpose()? })
    }

    /// Puts it in force.
    pub fn apply(&self, director: &mut Director<impl Datapath>) -> Result<()> {
        for (name, value) in &self.settings {
            if let Err(refusal) = director.set(name, value) {
                bail!("cannot set {name}: {}", refusal.message);
            }
        }
        match &self.marks {
            Some(rules) => director
                .datapath_mut()
                .set_marks(rules)
                .context("cannot put the rules that mark packets in force"),
            None => Ok(()),
        }
    }
}

/// Rules in the words of `rvs mark`.
fn rules(lines: &[String]) -> Result<Vec<MarkRule>> {
    if lines.len() > MARK_RULES as usize {
        bail!("marks: there are at most {MARK_RULES} rules, not {}", lines.len());
    }
    let rule = |line: &String| line.parse().with_context(|| format!("marks: {line:?}"));
    lines.iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_as_a_whole_or_refused() {
        let good = "# settings\n[sysctl]\nconn_reuse_mode = 2\nsync_threshold = \"3 50\"\n\
                    timeout_udp = 0x10\n";
        let settings = Config::parse(good).expect("it is valid").settings;
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected =
            [("conn_reuse_mode", "2"), ("sync_threshold", "3 50"), ("timeout_udp", "16")];
        assert_eq!(settings, expected);
        let nothing = Config::parse("").expect("nothing is valid");
        assert!(nothing.settings.is_empty() && nothing.marks.is_none());
        let lines = ["--dst 10.9.0.0/16 --proto sctp 5", "--src fd00::/8 --dport 80-90 6"];
        let marks = |lines: &[&str]| Config::parse(&format!("marks = {lines:?}")).map(|c| c.marks);
        let rules = marks(&lines).expect("they are valid").expect("there are some");
        assert_eq!(rules.iter().map(MarkRule::to_string).collect::<Vec<_>>(), lines);
        assert_eq!(marks(&[]).expect("none is valid"), Some(Vec::new()));
        assert_eq!(
            marks(&["5"; 256]).expect("as many as there can be").map(|r| r.len()),
            Some(256)
        );
        let error = format!("{:#}", marks(&["5"; 257]).expect_err("too many"));
        assert!(error.contains("at most 256 rules, not 257"), "{error}");
        for (bad, why) in [
            ("conn_reuse_mode = 2", "unknown field `conn_reuse_mode`"),
            ("[sysctl]\nnosuch = 1", "[sysctl]: no setting nosuch"),
            ("[sysctl]\nsecure_tcp = 4", "secure_tcp is a number from 0 to 3"),
            ("[sysctl]\nsync_threshold = \"4 50\"", "sync_threshold cannot be changed"),
            ("[sysctl]\ntimeout_close = 0", "timeout_close is a number from 1 to"),
            ("[sysctl]\nsecure_tcp = 1\nsecure_tcp = 2", "duplicate key"),
            ("[sysctl]\nsecure_tcp = true", "data did not match"),
            ("[sysctl", "unclosed table"),
            ("marks = [\"--dport 80\"]", "\"--dport 80\": a mark is a number from 1"),
            ("marks = [5]", "expected a string"),
        ] {
            let error = format!("{:#}", Config::parse(bad).expect_err(bad));
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
