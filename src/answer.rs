//! Standard output: the answer that a script reads.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::diagnostics::Failure;

/// The version of every JSON object that is printed; it rises when one loses or changes a member.
pub const JSON_VERSION: u32 = 1;

/// Prints text as it is.
///
/// A reader that has had enough (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("write to standard output", error))
        }
        _ => Ok(()),
    }
}

/// Prints one line.
pub fn line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// Prints an object with its version first.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(&versioned(value).to_string())
}

/// The object with a member `version`.
pub fn versioned(value: &impl Serialize) -> Value {
    let mut object = json!({ "version": JSON_VERSION });
    let members = serde_json::to_value(value).expect("answers are made of texts and numbers");
    if let (Value::Object(all), Value::Object(members)) = (&mut object, members) {
        all.extend(members);
    }
    object
}
