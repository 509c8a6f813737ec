//! The configuration file, rvsd.conf(5): TOML with a table `[sysctl]`. It is checked as a whole before
//! anything is done.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rvs_core::control::Datapath;
use rvs_director::Director;
use serde::Deserialize;

/// What the file says, checked.
#[derive(Debug, Default)]
pub struct Config {
    settings: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
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
        Ok(Self { settings })
    }

    /// Puts it in force.
    pub fn apply(&self, director: &mut Director<impl Datapath>) -> Result<()> {
        for (name, value) in &self.settings {
            if let Err(refusal) = director.set(name, value) {
                bail!("cannot set {name}: {}", refusal.message);
            }
        }
        Ok(())
    }
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
        assert!(Config::parse("").expect("nothing is valid").settings.is_empty());
        for (bad, why) in [
            ("conn_reuse_mode = 2", "unknown field `conn_reuse_mode`"),
            ("[sysctl]\nnosuch = 1", "[sysctl]: no setting nosuch"),
            ("[sysctl]\nsecure_tcp = 4", "secure_tcp is a number from 0 to 3"),
            ("[sysctl]\nconntrack = 1", "conntrack cannot be changed"),
            ("[sysctl]\ntimeout_close = 0", "timeout_close is a number from 1 to"),
            ("[sysctl]\nsecure_tcp = 1\nsecure_tcp = 2", "duplicate key"),
            ("[sysctl]\nsecure_tcp = true", "data did not match"),
            ("[sysctl", "unclosed table"),
        ] {
            let error = format!("{:#}", Config::parse(bad).expect_err(bad));
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
