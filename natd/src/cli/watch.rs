//! `natd status --watch`, `natd sessions --watch` and `natd diagnose --watch`: asks every second and shows the
//! answer until a key or a signal ends it.

use std::path::Path;
use std::time::Duration;

use super::{ExitCode, Failure, query};
use crate::io::control::{self, ClientError, Request};
use crate::io::terminal::{self, Screen, Wakeup};
use crate::report::text;
use crate::report::watch::{self, Size, Style, View};

/// Less than a second, so that a daemon that hangs does not keep the keys waiting.
pub(super) const PATIENCE: Duration = Duration::from_millis(800);

/// Control-C, which the terminal hands over as a key while the screen is ours.
const INTERRUPT: u8 = 3;

/// What is asked for again and again, and how it is shown.
pub(super) trait Live {
    /// The refusal of anything but a terminal.
    fn needs_terminal(&self) -> &'static str;
    /// Asks the daemon, `elapsed` after the last time that it answered.
    fn ask(&mut self, elapsed: Duration) -> Result<(), ClientError>;
    /// The screen; `trouble` is why the daemon does not answer.
    fn render(&self, trouble: Option<&str>, size: Size, style: Style) -> String;
}

/// `natd status --watch`.
pub(super) struct Household<'a> {
    socket: &'a Path,
    view: View,
}

impl<'a> Household<'a> {
    pub(super) fn new(socket: &'a Path) -> Self {
        Self { socket, view: View::default() }
    }
}

impl Live for Household<'_> {
    fn needs_terminal(&self) -> &'static str {
        "status --watch needs a terminal; for programs there is status --json"
    }

    fn ask(&mut self, elapsed: Duration) -> Result<(), ClientError> {
        let line = control::request(self.socket, &Request::Status, PATIENCE)?.only_line()?;
        self.view.observe(control::parse(&line)?, elapsed);
        Ok(())
    }

    fn render(&self, trouble: Option<&str>, size: Size, style: Style) -> String {
        match trouble {
            None => self.view.render(size, style),
            Some(trouble) => self.view.render_lost(trouble, size, style),
        }
    }
}

/// `natd sessions --watch`.
pub(super) struct Sessions<'a> {
    socket: &'a Path,
    table: String,
}

impl<'a> Sessions<'a> {
    pub(super) fn new(socket: &'a Path) -> Self {
        Self { socket, table: String::new() }
    }
}

impl Live for Sessions<'_> {
    fn needs_terminal(&self) -> &'static str {
        "sessions --watch needs a terminal; for programs there is sessions --json"
    }

    fn ask(&mut self, _: Duration) -> Result<(), ClientError> {
        let rows = query::tunnels(&mut control::request(self.socket, &Request::Sessions, PATIENCE)?)?;
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = text::sessions(&rows, &mut text);
        self.table = String::from_utf8_lossy(&text).into_owned();
        Ok(())
    }

    fn render(&self, trouble: Option<&str>, size: Size, style: Style) -> String {
        watch::table("VPN sessions", &self.table, trouble, size, style)
    }
}

/// Shows the live view; a daemon that is not there, or goes away, is waited for.
pub(super) fn watch(view: &mut dyn Live) -> Result<ExitCode, Failure> {
    if !terminal::on_terminal() {
        return Err(Failure::Usage(view.needs_terminal()));
    }
    // What cannot be helped by waiting is said at once, and stays to be read.
    let mut answer = view.ask(Duration::ZERO);
    if let Err(error @ ClientError::Permission(_)) = answer {
        return Err(error.into());
    }
    let style = style(|variable| std::env::var(variable).ok());
    let mut screen = Screen::enter()?;
    let mut elapsed = Duration::ZERO;
    loop {
        let trouble = match answer {
            Ok(()) => {
                elapsed = Duration::ZERO;
                None
            }
            Err(error) => Some(error.to_string()),
        };
        loop {
            screen.show(&view.render(trouble.as_deref(), terminal::size(), style))?;
            match screen.wait()? {
                Wakeup::Tick(seconds) => {
                    elapsed += Duration::from_secs(seconds);
                    break;
                }
                Wakeup::Key(b'q' | b'Q' | INTERRUPT) | Wakeup::Terminated => return Ok(ExitCode::Fine),
                Wakeup::Key(_) | Wakeup::Resized => {}
            }
        }
        answer = view.ask(elapsed);
    }
}

/// What the environment says of the terminal: colours unless NO_COLOR (no-color.org) or TERM forbids them,
/// block elements unless the locale is one without.
fn style(variable: impl Fn(&str) -> Option<String>) -> Style {
    let said = |name| variable(name).filter(|text: &String| !text.is_empty());
    let dumb = said("TERM").is_none_or(|term| term == "dumb");
    let locale = said("LC_ALL").or_else(|| said("LC_CTYPE")).or_else(|| said("LANG"));
    // Routers often set no locale at all, and are looked at from terminals that know UTF-8.
    let utf8 = locale.is_none_or(|locale| locale.to_ascii_lowercase().replace('-', "").contains("utf8"));
    Style { colour: !dumb && said("NO_COLOR").is_none(), blocks: !dumb && utf8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(environment: &[(&str, &str)]) -> Style {
        let known = |name: &str| environment.iter().find(|(known, _)| *known == name);
        style(|name| known(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn colours_and_blocks_follow_the_environment() {
        let all = Style { colour: true, blocks: true };
        assert_eq!(with(&[("TERM", "xterm")]), all);
        assert_eq!(with(&[("TERM", "xterm"), ("LANG", "de_DE.UTF-8"), ("NO_COLOR", "")]), all);
        assert_eq!(with(&[("TERM", "xterm"), ("NO_COLOR", "1")]), Style { colour: false, ..all });
        assert_eq!(with(&[("TERM", "xterm"), ("LANG", "C")]), Style { blocks: false, ..all });
        let overridden = with(&[("TERM", "xterm"), ("LANG", "C"), ("LC_ALL", "C.utf8")]);
        assert_eq!(overridden, all);
        assert_eq!(with(&[]), Style { colour: false, blocks: false });
    }
}
