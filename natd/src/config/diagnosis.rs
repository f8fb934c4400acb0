//! `[diagnosis]` and `[sessions]`: what is watched, and where VPN sessions are written down.

use std::path::PathBuf;

use super::document::Document;
use super::item::Item;
use super::{Findings, LogFormat, LogTo, Problem, SessionLog};

const FORMATS: [(&str, LogFormat); 2] = [("json", LogFormat::Json), ("text", LogFormat::Text)];
/// In bytes.
const SIZES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;

/// `[diagnosis] observe`.
pub(super) fn observe(document: &Document<'_>, findings: &mut Findings) -> bool {
    findings.take(document.section("diagnosis").item("observe"), |item| item.boolean()).unwrap_or(true)
}

/// `[sessions]`; without `observe` there are none to write down.
pub(super) fn sessions(document: &Document<'_>, observe: bool, findings: &mut Findings) -> SessionLog {
    let section = document.section("sessions");
    let mut log = SessionLog::default();
    findings.set(&mut log.to, section.item("log"), log_to);
    findings.set(&mut log.format, section.item("format"), |item| item.choice(&FORMATS));
    findings.set(&mut log.max_size, section.item("max_size"), size);
    if let (false, false, Some(item)) = (observe, log.to == LogTo::Off, section.item("log")) {
        findings.remarks.push(item.remark("nothing is written down while diagnosis.observe is false"));
    }
    log
}

fn log_to(item: &Item<'_>) -> Result<LogTo, Problem> {
    let expected =
        "use \"off\", \"log\" or the absolute path of a file, such as \"/var/log/natd/sessions.log\"";
    match item.text(expected)? {
        "off" => Ok(LogTo::Off),
        "log" => Ok(LogTo::Log),
        path if !path.starts_with('/') || path.ends_with('/') => {
            Err(item.refused("is neither of the two words nor the absolute path of a file", expected))
        }
        path if path.contains('\0') => Err(item.refused("has a zero byte", expected)),
        path => Ok(LogTo::File(PathBuf::from(path))),
    }
}

/// `"512K"`, `"1M"`, or a number of bytes.
fn size(item: &Item<'_>) -> Result<u64, Problem> {
    let expected = "use a size from \"4K\" to \"1024M\", or a number of bytes";
    let bytes = match (item.as_text(), item.as_number()) {
        (Some(text), _) => {
            let (digits, shift) = match text.as_bytes().last() {
                Some(b'K') => (text.trim_end_matches('K'), 10),
                Some(b'M') => (text.trim_end_matches('M'), 20),
                Some(_) | None => (text, 0),
            };
            let number = digits.parse::<u64>().map_err(|_| item.refused("is not a size", expected))?;
            number.checked_mul(1 << shift)
        }
        (None, Some(number)) => number,
        (None, None) => return Err(item.wrong_kind(expected)),
    };
    bytes.filter(|bytes| SIZES.contains(bytes)).ok_or_else(|| item.refused("is out of range", expected))
}
