//! The kernel's own counters of a queue.

use std::io;

/// A line of `/proc/net/netfilter/nfnetlink_queue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueStats {
    /// The queue's number.
    pub number: u16,
    /// The netlink port that has it, usually that process's id.
    pub owner: u32,
    /// Packets without a verdict: on their way, being decided on, or held.
    pub waiting: u32,
    /// Packets dropped because the queue was full: natd is too slow.
    pub queue_dropped: u64,
    /// Packets dropped because the receive buffer was full: bursts.
    pub user_dropped: u64,
}

impl QueueStats {
    /// The counters of queue `number`; `None` when nobody has it.
    ///
    /// # Errors
    /// When the file cannot be read: no NFQUEUE in the kernel, or no /proc.
    pub fn read(number: u16) -> io::Result<Option<Self>> {
        Ok(Self::read_all()?.into_iter().find(|stats| stats.number == number))
    }

    /// The counters of every queue in this network namespace.
    ///
    /// # Errors
    /// As [`QueueStats::read`].
    pub fn read_all() -> io::Result<Vec<Self>> {
        // Of this thread, whose network namespace may be its own.
        let text = std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue")?;
        Ok(text.lines().filter_map(Self::parse).collect())
    }

    /// Columns: number, port, waiting, copy mode, copy range, queue dropped, user dropped, last id, 1.
    fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split_ascii_whitespace();
        Some(Self {
            number: columns.next()?.parse().ok()?,
            owner: columns.next()?.parse().ok()?,
            waiting: columns.next()?.parse().ok()?,
            queue_dropped: columns.nth(2)?.parse().ok()?,
            user_dropped: columns.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_by_its_columns() {
        let line = "   17  12345     3 2 65531     40      5       99  1";
        assert_eq!(
            QueueStats::parse(line),
            Some(QueueStats { number: 17, owner: 12345, waiting: 3, queue_dropped: 40, user_dropped: 5 })
        );
    }

    #[test]
    fn a_line_that_lacks_a_column_is_no_queue() {
        assert_eq!(QueueStats::parse("17 12345 3 2 65531 40"), None);
        assert_eq!(QueueStats::parse(""), None);
        assert_eq!(QueueStats::parse("x 12345 3 2 65531 40 5 99 1"), None);
    }
}
