//! The TCP connections: PPTP's control connection, and TLS.

use nat_core::time::Timestamp;

use super::messages::{self, PptpAnswer};
use super::{Action, Ending, Kind, Probe, Service};

/// How PPTP's control connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Not connected yet.
    Waiting,
    /// Connected, SCCRQ sent.
    Starting,
    /// SCCRP came, OCRQ sent.
    Calling,
    /// OCRP came, with the server's Call ID.
    Call(u16),
    /// It went wrong.
    Failed(Failure),
}

/// What went wrong on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    NoAnswer,
    Ended(Ending),
    /// After it was open.
    Broken(Ending),
    /// Open, and nothing comes.
    Mute,
    /// Something else runs there.
    Foreign,
    /// SCCRP with this result.
    Start(u8),
    /// OCRP with this result.
    Call(u8),
    /// SCCRP, and no OCRP.
    NoCall,
}

/// How TLS goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    Waiting,
    /// Connected, ClientHello sent.
    Greeted,
    /// ServerHello, or an alert.
    Answered {
        alert: bool,
    },
    Failed(Failure),
}

impl Probe {
    /// The connection is open.
    pub fn connected(&mut self, now: Timestamp, service: Service) {
        match service {
            Service::Pptp if self.control == Control::Waiting => {
                self.control = Control::Starting;
                self.again(now, Kind::Pptp);
                self.queue.push_back(Action::Write(service, messages::pptp_start()));
            }
            Service::Tls if self.tls == Tls::Waiting => {
                self.tls = Tls::Greeted;
                self.again(now, Kind::Tls);
                let hello = messages::client_hello(self.target.name.as_deref(), &self.seed.random);
                self.queue.push_back(Action::Write(service, hello));
            }
            Service::Pptp | Service::Tls => {}
        }
    }

    /// Patience begins again.
    fn again(&mut self, now: Timestamp, kind: Kind) {
        let asked = self.of_mut(kind);
        (asked.first, asked.last) = (Some(now), now);
    }

    /// Bytes came on the connection.
    pub fn received(&mut self, now: Timestamp, service: Service, bytes: &[u8]) {
        match (service, self.tls) {
            (Service::Tls, Tls::Greeted) => {
                let answer = match bytes.first() {
                    Some(22) => Tls::Answered { alert: false },
                    Some(21) => Tls::Answered { alert: true },
                    _ => Tls::Failed(Failure::Foreign),
                };
                self.of_mut(Kind::Tls).answered = true;
                self.end_tls(answer);
            }
            (Service::Tls, _) => {}
            (Service::Pptp, _) => {
                let room = 2048usize.saturating_sub(self.stream.len());
                self.stream.extend(bytes.iter().take(room));
                self.control_messages(now);
            }
        }
    }

    fn control_messages(&mut self, now: Timestamp) {
        loop {
            let message = match messages::pptp_answer(&mut self.stream) {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(()) => {
                    self.stream.clear();
                    return self.end_control(Failure::Foreign);
                }
            };
            match (self.control, message) {
                (Control::Starting, PptpAnswer::Start(1)) => {
                    self.of_mut(Kind::Pptp).answered = true;
                    self.control = Control::Calling;
                    self.again(now, Kind::Pptp);
                    self.queue.push_back(Action::Write(Service::Pptp, messages::pptp_call(self.seed.call)));
                }
                (Control::Starting, PptpAnswer::Start(result)) => self.end_control(Failure::Start(result)),
                (Control::Calling, PptpAnswer::Call { id, result: 1 }) => {
                    self.control = Control::Call(id);
                    self.of_mut(Kind::Pptp).done = true;
                }
                (Control::Calling, PptpAnswer::Call { result, .. }) => {
                    self.end_control(Failure::Call(result));
                }
                _ => {}
            }
        }
    }

    /// The connection could not be made (`open` is false) or has ended.
    pub fn closed(&mut self, service: Service, open: bool, ending: Ending) {
        let failure = if open { Failure::Broken(ending) } else { Failure::Ended(ending) };
        match service {
            Service::Pptp => match self.control {
                Control::Waiting | Control::Starting | Control::Calling => self.end_control(failure),
                // The server gave up on a call without LCP; GRE has been asked.
                Control::Call(_) | Control::Failed(_) => {}
            },
            Service::Tls => match self.tls {
                Tls::Waiting | Tls::Greeted => self.end_tls(Tls::Failed(failure)),
                Tls::Answered { .. } | Tls::Failed(_) => {}
            },
        }
    }

    pub(super) fn end_control(&mut self, failure: Failure) {
        let answered = matches!(failure, Failure::Start(_) | Failure::Call(_) | Failure::NoCall);
        let asked = self.of_mut(Kind::Pptp);
        asked.answered |= answered;
        asked.done = true;
        if answered {
            self.queue.push_back(Action::Write(Service::Pptp, messages::pptp_stop()));
        }
        self.queue.push_back(Action::Close(Service::Pptp));
        self.control = Control::Failed(failure);
    }

    /// Ends a call in good order.
    pub(super) fn hang_up(&mut self) {
        if let Control::Call(_) = self.control {
            for message in [messages::pptp_clear(self.seed.call), messages::pptp_stop()] {
                self.queue.push_back(Action::Write(Service::Pptp, message));
            }
            self.queue.push_back(Action::Close(Service::Pptp));
        }
    }

    pub(super) fn end_tls(&mut self, state: Tls) {
        self.tls = state;
        self.of_mut(Kind::Tls).done = true;
        self.queue.push_back(Action::Close(Service::Tls));
    }
}
