//! `postmaster.pid`: the server that runs in a data directory (`utils/pidfile.h`).
//!
//! The server writes it line by line while it starts, so any line but the first may still be missing.

use super::ParseError;

/// What `postmaster.pid` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostmasterPid {
    /// The postmaster's process id; of a single-user server, that server's.
    pub pid: u32,
    /// A single-user server (`postgres --single`), which writes its id with a minus sign.
    pub single_user: bool,
    /// The data directory. Bytes that are no UTF-8 are replaced.
    pub data_directory: Option<String>,
    /// When it started, in seconds since 1970.
    pub start_time: Option<i64>,
    /// The port it listens on.
    pub port: Option<u16>,
    /// The directory of its first Unix socket; none where it has none.
    pub socket_directory: Option<String>,
    /// The first address it listens on (`*` for all); none where it has none.
    pub listen_address: Option<String>,
    /// What it is doing.
    pub status: Option<PostmasterStatus>,
}

/// Line 8: what the server is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostmasterStatus {
    /// `starting`.
    Starting,
    /// `stopping`: it shuts down.
    Stopping,
    /// `ready`: it accepts connections.
    Ready,
    /// `standby`: it is up in recovery and accepts none.
    Standby,
    /// A word that we do not know.
    Other(String),
}

impl PostmasterPid {
    /// Reads the file.
    pub fn parse(file: &[u8]) -> Result<Self, ParseError> {
        let bad = |why: String| ParseError::new("postmaster.pid", why);
        let text = String::from_utf8_lossy(file);
        let lines: Vec<&str> = text.split('\n').map(|line| line.trim_end_matches([' ', '\r'])).collect();
        let line = |number: usize| lines.get(number - 1).copied().filter(|line| !line.is_empty());

        let first = line(1).ok_or_else(|| bad("its first line, the process id, is empty".into()))?;
        let digits = first.strip_prefix('-').unwrap_or(first);
        let pid = decimal(digits)
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid != 0)
            .ok_or_else(|| bad(format!("its first line, {first:?}, is no process id")))?;
        let number = |at: usize| match line(at) {
            None => Ok(None),
            Some(text) => decimal(text).map(Some).ok_or_else(|| bad(format!("line {at}, {text:?}, is no number"))),
        };
        let port = number(4)?.map(|port| u16::try_from(port).map_err(|_| bad(format!("port {port}"))));
        Ok(Self {
            pid,
            single_user: first.starts_with('-'),
            data_directory: line(2).map(str::to_owned),
            start_time: number(3)?,
            port: port.transpose()?.filter(|port| *port != 0),
            socket_directory: line(5).map(str::to_owned),
            listen_address: line(6).map(str::to_owned),
            status: line(8).map(PostmasterStatus::of),
        })
    }

    /// Whether the server is shutting down.
    pub fn is_stopping(&self) -> bool {
        self.status == Some(PostmasterStatus::Stopping)
    }
}

impl PostmasterStatus {
    fn of(word: &str) -> Self {
        match word {
            "starting" => Self::Starting,
            "stopping" => Self::Stopping,
            "ready" => Self::Ready,
            "standby" => Self::Standby,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// A decimal number without a sign.
fn decimal(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_server() {
        let file = b"15997\n/srv/pg/data\n1795510911\n5432\n/run/postgresql\n*\n 10019129        29\nready   \n";
        let parsed = PostmasterPid::parse(file).unwrap();
        assert_eq!(
            parsed,
            PostmasterPid {
                pid: 15997,
                single_user: false,
                data_directory: Some("/srv/pg/data".into()),
                start_time: Some(1_795_510_911),
                port: Some(5432),
                socket_directory: Some("/run/postgresql".into()),
                listen_address: Some("*".into()),
                status: Some(PostmasterStatus::Ready),
            }
        );
        assert!(!parsed.is_stopping());
    }

    #[test]
    fn every_status() {
        for (word, status) in [
            ("starting", PostmasterStatus::Starting),
            ("stopping", PostmasterStatus::Stopping),
            ("ready   ", PostmasterStatus::Ready),
            ("standby ", PostmasterStatus::Standby),
            ("dreaming", PostmasterStatus::Other("dreaming".into())),
        ] {
            let parsed = PostmasterPid::parse(format!("1\n/d\n1\n1\n\n\n1 1\n{word}\n").as_bytes()).unwrap();
            assert_eq!(parsed.is_stopping(), word == "stopping");
            assert_eq!(parsed.status, Some(status));
        }
    }

    #[test]
    fn a_file_still_being_written() {
        for text in ["77", "77\n", "77\n/d", "77\n/d\n1795510911\n5432\n/run\n\n"] {
            let parsed = PostmasterPid::parse(text.as_bytes()).unwrap();
            assert_eq!((parsed.pid, parsed.status), (77, None), "{text:?}");
        }
        let single = PostmasterPid::parse(b"-77\n/d\n1795510911\n0\n\n\n").unwrap();
        assert_eq!((single.pid, single.single_user, single.port), (77, true, None));
    }

    #[test]
    fn what_no_server_writes() {
        for text in
            ["", "\n", "0\n", "-0\n", "--1\n", "+1\n", "x\n", "4294967296\n", "1\n/d\nsoon\n", "1\n/d\n1\n65536\n"]
        {
            assert!(PostmasterPid::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(PostmasterPid::parse(&[0xFF; 64]).is_err());
    }
}
