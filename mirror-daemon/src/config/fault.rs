//! What is wrong with a configuration.

use std::fmt;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Where, e.g. `route[0].rule[1].mirror[0].percentage`; empty: the text is no TOML there.
    pub path: String,
    /// Line in the source, counted from 1.
    pub line: usize,
    /// What was found, what is allowed, and the way out.
    pub message: String,
}

/// Every fault of a configuration, by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFaults {
    /// Name of the source, e.g. the file's.
    pub source_name: String,
    /// At least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{}:{}: ", self.source_name, fault.line)?;
            if !fault.path.is_empty() {
                write!(f, "{}: ", fault.path)?;
            }
            // One fault is one line, whatever was quoted in it.
            f.write_str(&fault.message.replace(['\n', '\r'], " "))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigFaults {}
