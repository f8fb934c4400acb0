//! `natd status --watch`: asks every second and shows the answer until a key or a signal ends it.

use std::path::Path;
use std::time::Duration;

use super::{ExitCode, Failure};
use crate::io::control::{self, ClientError, Request};
use crate::io::terminal::{self, Screen, Wakeup};
use crate::report::Status;
use crate::report::watch::{Style, View};

/// Less than a second, so that a daemon that hangs does not keep the keys waiting.
const PATIENCE: Duration = Duration::from_millis(800);

/// Control-C, which the terminal hands over as a key while the screen is ours.
const INTERRUPT: u8 = 3;

/// Shows the live view; a daemon that is not there, or goes away, is waited for.
pub(super) fn watch(socket: &Path) -> Result<ExitCode, Failure> {
    if !terminal::on_terminal() {
        return Err(Failure::Usage("status --watch needs a terminal; for programs there is status --json"));
    }
    // What cannot be helped by waiting is said at once, and stays to be read.
    let mut answer = ask(socket);
    if let Err(error @ ClientError::Permission(_)) = answer {
        return Err(error.into());
    }
    let style = style(|variable| std::env::var(variable).ok());
    let mut view = View::default();
    let mut screen = Screen::enter()?;
    let mut elapsed = Duration::ZERO;
    loop {
        let trouble = match answer {
            Ok(status) => {
                view.observe(status, elapsed);
                elapsed = Duration::ZERO;
                None
            }
            Err(error) => Some(error.to_string()),
        };
        loop {
            let size = terminal::size();
            screen.show(&match &trouble {
                None => view.render(size, style),
                Some(trouble) => view.render_lost(trouble, size, style),
            })?;
            match screen.wait()? {
                Wakeup::Tick(seconds) => {
                    elapsed += Duration::from_secs(seconds);
                    break;
                }
                Wakeup::Key(b'q' | b'Q' | INTERRUPT) | Wakeup::Terminated => return Ok(ExitCode::Fine),
                Wakeup::Key(_) | Wakeup::Resized => {}
            }
        }
        answer = ask(socket);
    }
}

fn ask(socket: &Path) -> Result<Status, ClientError> {
    let line = control::request(socket, &Request::Status, PATIENCE)?.only_line()?;
    control::parse(&line)
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
