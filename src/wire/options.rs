//! Which server, as whom, and how: libpq's connection options, resolved as libpq resolves them.
//!
//! Precedence, highest first: the connection string, the service file, the environment, defaults (`conninfo_add_defaults`).

use super::dsn::{self, Pairs};
use super::passfile::PassFile;
use super::service;
use crate::account::Accounts;
use crate::config::Secret;
use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much encryption is asked for, with libpq's meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Without first; with, if the server insists.
    Allow,
    /// With, if the server can; else without. The default.
    Prefer,
    /// With; the certificate is checked only where a root certificate file exists (then as `VerifyCa`).
    Require,
    /// With, and the certificate must lead to a trusted root.
    VerifyCa,
    /// With, and the certificate must lead to a trusted root and bear the host's name.
    VerifyFull,
}

/// Whether authentication must be bound to the TLS channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where possible. The default.
    Prefer,
    /// Else no connection.
    Require,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// The directory of a Unix socket.
    Unix(PathBuf),
    /// A name, and, where `hostaddr` gave it, the address to use instead of looking the name up.
    Tcp {
        /// Name or address, as the user wrote it; certificates are held against it.
        name: String,
        /// The address to connect to.
        address: Option<IpAddr>,
    },
}

/// One of the servers to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where it listens.
    pub address: Address,
    /// Its port; on a Unix socket, the number in the socket's name.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Unix(directory) => write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port),
            Address::Tcp { name, .. } if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Address::Tcp { name, .. } => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Files and modes of the encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TlsOptions {
    pub(super) mode: SslMode,
    /// TLS from the first byte, without asking (17 and later).
    pub(super) direct: bool,
    pub(super) root: RootCertificates,
    /// Client certificate and key; `true` where the user named them, so that they must exist.
    pub(super) certificate: Option<(PathBuf, bool)>,
    pub(super) key: Option<(PathBuf, bool)>,
    pub(super) sni: bool,
    /// Nothing older than TLS 1.3.
    pub(super) only_tls13: bool,
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RootCertificates {
    /// The system's store.
    System,
    /// A PEM file, which may be missing where the mode allows it.
    File(PathBuf),
    /// No home directory, hence no default file.
    Nowhere,
}

/// Everything needed to connect. `Debug` hides passwords.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The servers to try, in order; the first that answers is taken.
    pub hosts: Vec<Host>,
    /// The role to connect as.
    pub user: String,
    /// The database, where one was named; the role's name is libpq's default.
    pub database: Option<String>,
    /// What the server shows in `pg_stat_activity` and `pg_stat_replication`.
    pub application_name: String,
    /// How long one server may take until it is ready; `None` is for ever.
    pub connect_timeout: Option<Duration>,
    /// Whether authentication must be bound to the TLS channel.
    pub channel_binding: ChannelBinding,
    /// Command-line options for the server process (`-c …`).
    pub(super) server_options: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) passfile: PassFile,
    pub(super) tls: TlsOptions,
    /// TCP keepalive, on unless `keepalives=0`.
    pub(super) keepalive: bool,
}

/// Where options come from besides the connection string.
pub struct Environment<'a> {
    /// Looks up an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The home directory.
    pub home: Option<PathBuf>,
    /// Name of the operating system's user.
    pub user: Option<String>,
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("home", &self.home).field("user", &self.user).finish_non_exhaustive()
    }
}

/// What we do with one of libpq's options.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Obeyed.
    Yes,
    /// Means nothing to this program, and leaving it out harms nobody.
    Ignored,
    /// Leaving it out would be less safe or less right than asked for: only these values, which ask for nothing, are accepted.
    Only(&'static [&'static str]),
}

/// libpq's options, their variables, and what becomes of them.
const OPTIONS: &[(&str, &str, Use)] = &[
    ("service", "PGSERVICE", Use::Yes),
    ("user", "PGUSER", Use::Yes),
    ("password", "PGPASSWORD", Use::Yes),
    ("passfile", "PGPASSFILE", Use::Yes),
    ("channel_binding", "PGCHANNELBINDING", Use::Yes),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Use::Yes),
    ("dbname", "PGDATABASE", Use::Yes),
    ("host", "PGHOST", Use::Yes),
    ("hostaddr", "PGHOSTADDR", Use::Yes),
    ("port", "PGPORT", Use::Yes),
    ("options", "PGOPTIONS", Use::Yes),
    ("application_name", "PGAPPNAME", Use::Yes),
    ("sslmode", "PGSSLMODE", Use::Yes),
    ("sslnegotiation", "PGSSLNEGOTIATION", Use::Yes),
    ("sslrootcert", "PGSSLROOTCERT", Use::Yes),
    ("sslcert", "PGSSLCERT", Use::Yes),
    ("sslkey", "PGSSLKEY", Use::Yes),
    ("sslsni", "PGSSLSNI", Use::Yes),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Use::Yes),
    ("keepalives", "", Use::Yes),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Use::Only(&["any"])),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Use::Only(&["disable"])),
    ("sslcrl", "PGSSLCRL", Use::Only(&[])),
    ("sslcrldir", "PGSSLCRLDIR", Use::Only(&[])),
    ("sslpassword", "", Use::Only(&[])),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Use::Only(&[])),
    ("requirepeer", "PGREQUIREPEER", Use::Only(&[])),
    ("require_auth", "PGREQUIREAUTH", Use::Only(&[])),
    ("gssencmode", "PGGSSENCMODE", Use::Only(&["disable", "prefer"])),
    ("gssdelegation", "PGGSSDELEGATION", Use::Ignored),
    ("gsslib", "PGGSSLIB", Use::Ignored),
    ("krbsrvname", "PGKRBSRVNAME", Use::Ignored),
    ("sslcompression", "PGSSLCOMPRESSION", Use::Ignored),
    ("sslcertmode", "PGSSLCERTMODE", Use::Ignored),
    ("client_encoding", "PGCLIENTENCODING", Use::Ignored),
    ("fallback_application_name", "", Use::Ignored),
    ("keepalives_idle", "", Use::Ignored),
    ("keepalives_interval", "", Use::Ignored),
    ("keepalives_count", "", Use::Ignored),
    ("tcp_user_timeout", "", Use::Ignored),
    ("replication", "", Use::Ignored),
];

fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

impl ConnectOptions {
    /// The options that this connection string, the service file and this process's environment give.
    pub fn from_environment(dsn: Option<&str>) -> Result<Self> {
        let account = Accounts::read().of_uid(rustix::process::geteuid().as_raw()).cloned();
        let variable = |name: &str| std::env::var(name).ok();
        let home = variable("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let home = home.or_else(|| account.as_ref().map(|account| account.home.clone()));
        let user = account.map(|account| account.name).or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
        Self::resolve(dsn, &Environment { variable: &variable, home, user })
    }

    /// [`Self::from_environment`], with the environment as an argument.
    pub fn resolve(dsn: Option<&str>, environment: &Environment<'_>) -> Result<Self> {
        let values = Values::collect(dsn, environment)?;
        let home = environment.home.as_deref();
        let user = match values.get("user").map(str::to_owned).or_else(|| environment.user.clone()) {
            Some(user) => user,
            None => return Err(config("no role to connect as").hint("set PGUSER, or write user=… into --dsn")),
        };
        let passfile = values.get("passfile").map(PathBuf::from).or_else(|| Some(home?.join(".pgpass")));
        let options = Self {
            hosts: hosts(&values)?,
            user,
            database: values.get("dbname").map(str::to_owned),
            application_name: values.get("application_name").unwrap_or("walhalla").to_owned(),
            connect_timeout: connect_timeout(&values)?,
            channel_binding: match values.get("channel_binding") {
                None | Some("prefer") => ChannelBinding::Prefer,
                Some("disable") => ChannelBinding::Disable,
                Some("require") => ChannelBinding::Require,
                Some(other) => return Err(invalid("channel_binding", other)),
            },
            server_options: values.get("options").map(str::to_owned),
            password: values.get("password").map(Secret::new),
            passfile: passfile.map(|path| PassFile::read(&path)).unwrap_or_default(),
            tls: tls(&values, home)?,
            keepalive: values.get("keepalives") != Some("0"),
        };
        Ok(options)
    }

    /// Sets the password, beating every other source.
    #[must_use]
    pub fn with_password(mut self, password: Secret) -> Self {
        self.password = Some(password);
        self
    }

    /// The password for a host: given, else from the password file. Replication connections are looked up there under the
    /// database `replication`, as Postgres' own tools do it.
    pub(super) fn password_for(&self, host: &Host, replication: bool) -> Option<&Secret> {
        if self.password.is_some() {
            return self.password.as_ref();
        }
        let name = match &host.address {
            Address::Tcp { name, .. } => name.as_str(),
            Address::Unix(directory) if SOCKET_DIRECTORIES.iter().any(|known| Path::new(known) == directory) => {
                "localhost"
            }
            Address::Unix(directory) => directory.to_str().unwrap_or_default(),
        };
        let find = |database: &str| self.passfile.password(name, host.port, database, &self.user);
        let named = self.database.as_deref().unwrap_or(&self.user);
        if replication { find("replication").or_else(|| find(named)) } else { find(named) }
    }
}

/// The options' texts, after precedence.
struct Values(Pairs);

impl Values {
    fn collect(dsn: Option<&str>, environment: &Environment<'_>) -> Result<Self> {
        let variable = |name: &str| (environment.variable)(name).filter(|value| !value.is_empty());
        // Later pairs lose, within the connection string too only the last counts: hence reversed.
        let mut pairs: Pairs = dsn.map(dsn::parse).transpose()?.unwrap_or_default().into_iter().rev().collect();
        let service = pairs.iter().find(|(key, _)| key == "service").map(|(_, value)| value.clone());
        if let Some(service) = service.or_else(|| variable("PGSERVICE")) {
            let own = variable("PGSERVICEFILE").map(PathBuf::from);
            let own = own.or_else(|| Some(environment.home.as_deref()?.join(".pg_service.conf")));
            let system = variable("PGSYSCONFDIR").unwrap_or_else(|| "/etc/postgresql-common".to_owned());
            let files: Vec<PathBuf> = own.into_iter().chain([Path::new(&system).join("pg_service.conf")]).collect();
            pairs.extend(service::read(&service, &files)?);
        }
        for (key, name, _) in OPTIONS {
            pairs.extend(variable(name).filter(|_| !name.is_empty()).map(|value| ((*key).to_owned(), value)));
        }
        for (key, value) in &pairs {
            match OPTIONS.iter().find(|(known, _, _)| known == key) {
                None => return Err(unknown(key)),
                Some((_, _, Use::Only(only))) if !value.is_empty() && !only.contains(&value.as_str()) => {
                    // `sslpassword` is one of them.
                    let value = if only.is_empty() { String::new() } else { format!("={value}") };
                    return Err(config(format!("the connection option {key}{value} is not supported"))
                        .hint("leave it out of the connection string, the service file and the environment"));
                }
                Some(_) => {}
            }
        }
        Ok(Self(pairs))
    }

    /// The value with the highest precedence; an empty one counts as unset.
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == key && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

/// A key is named only where it looks like one: the rest of a misspelt connection string may hold a password.
fn unknown(key: &str) -> Error {
    let plain = key.len() <= 40 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let what = if plain { format!("\"{key}\"") } else { "what stands before a \"=\" in it".to_owned() };
    config(format!("cannot read the connection string: {what} is no connection option"))
        .hint("write postgres://user@host:5432/dbname?sslmode=require, or host=… port=… user=…")
}

fn invalid(key: &str, value: &str) -> Error {
    config(format!("invalid {key} \"{value}\""))
}

/// Where Debian's and upstream's servers put their sockets.
pub(super) const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

fn hosts(values: &Values) -> Result<Vec<Host>> {
    let list = |key| values.get(key).map(|text| text.split(',').map(str::trim).collect::<Vec<_>>()).unwrap_or_default();
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = names.len().max(addresses.len()).max(1);
    if !addresses.is_empty() && !names.is_empty() && addresses.len() != names.len() {
        return Err(config(format!("{} values for host, but {} for hostaddr", names.len(), addresses.len())));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(config(format!("{} values for port, but {count} for host", ports.len())));
    }
    (0..count)
        .map(|at| {
            let port = match ports.get(at).or_else(|| ports.first().filter(|_| ports.len() == 1)) {
                None | Some(&"") => 5432,
                Some(text) => text.parse().ok().filter(|port| *port != 0).ok_or_else(|| invalid("port", text))?,
            };
            let address = match addresses.get(at).filter(|text| !text.is_empty()) {
                Some(text) => Some(text.parse::<IpAddr>().map_err(|_| invalid("hostaddr", text))?),
                None => None,
            };
            let name = names.get(at).copied().unwrap_or_default();
            Ok(Host { address: host_address(name, address, port), port })
        })
        .collect()
}

fn host_address(name: &str, address: Option<IpAddr>, port: u16) -> Address {
    match (name, address) {
        ("", Some(address)) => Address::Tcp { name: address.to_string(), address: Some(address) },
        ("", None) => {
            let socket = |directory: &&&str| Path::new(directory).join(format!(".s.PGSQL.{port}")).exists();
            match SOCKET_DIRECTORIES.iter().find(socket) {
                Some(directory) => Address::Unix(PathBuf::from(directory)),
                None => Address::Tcp { name: "localhost".to_owned(), address: None },
            }
        }
        (name, None) if name.starts_with('/') => Address::Unix(PathBuf::from(name)),
        (name, address) => Address::Tcp { name: name.to_owned(), address },
    }
}

/// libpq waits for ever by default; a nightly job must not. Zero asks for that.
fn connect_timeout(values: &Values) -> Result<Option<Duration>> {
    match values.get("connect_timeout") {
        None => Ok(Some(Duration::from_secs(30))),
        Some(text) => match text.trim().parse::<i32>() {
            Ok(seconds) if seconds <= 0 => Ok(None),
            // libpq's lower bound: one second may round down to nothing.
            Ok(seconds) => Ok(Some(Duration::from_secs(u64::from(seconds.unsigned_abs()).max(2)))),
            Err(_) => Err(invalid("connect_timeout", text)),
        },
    }
}

fn tls(values: &Values, home: Option<&Path>) -> Result<TlsOptions> {
    let root = match values.get("sslrootcert") {
        Some("system") => RootCertificates::System,
        Some(path) => RootCertificates::File(PathBuf::from(path)),
        None => match home {
            Some(home) => RootCertificates::File(home.join(".postgresql/root.crt")),
            None => RootCertificates::Nowhere,
        },
    };
    let mode = match values.get("sslmode") {
        None if root == RootCertificates::System => SslMode::VerifyFull,
        None | Some("prefer") => SslMode::Prefer,
        Some("disable") => SslMode::Disable,
        Some("allow") => SslMode::Allow,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(other) => return Err(invalid("sslmode", other)),
    };
    if root == RootCertificates::System && mode != SslMode::VerifyFull {
        return Err(config(
            "sslrootcert=system goes with sslmode=verify-full only: any other would trust every holder of a \
            public certificate",
        ));
    }
    let direct = match values.get("sslnegotiation") {
        None | Some("postgres") => false,
        Some("direct") if matches!(mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer) => {
            return Err(config("sslnegotiation=direct needs sslmode=require or stricter"));
        }
        Some("direct") => true,
        Some(other) => return Err(invalid("sslnegotiation", other)),
    };
    let only_tls13 = match values.get("ssl_min_protocol_version") {
        None | Some("TLSv1" | "TLSv1.1" | "TLSv1.2") => false,
        Some("TLSv1.3") => true,
        Some(other) => return Err(invalid("ssl_min_protocol_version", other)),
    };
    let file = |key: &str, default: &str| match values.get(key) {
        Some(path) => Some((PathBuf::from(path), true)),
        None => home.map(|home| (home.join(".postgresql").join(default), false)),
    };
    Ok(TlsOptions {
        mode,
        direct,
        root,
        certificate: file("sslcert", "postgresql.crt"),
        key: file("sslkey", "postgresql.key"),
        sni: values.get("sslsni") != Some("0"),
        only_tls13,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(dsn: Option<&str>, variables: &[(&str, &str)]) -> Result<ConnectOptions> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let environment = Environment { variable: &variable, home: None, user: Some("me".to_owned()) };
        ConnectOptions::resolve(dsn, &environment)
    }

    fn shown(dsn: Option<&str>, variables: &[(&str, &str)]) -> String {
        let options = resolve(dsn, variables).unwrap();
        let hosts: Vec<String> = options.hosts.iter().map(Host::to_string).collect();
        format!("{}@{}/{}", options.user, hosts.join(","), options.database.unwrap_or_default())
    }

    #[test]
    fn the_string_beats_the_service_beats_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("services");
        std::fs::write(&file, "[s]\nhost=service\nport=2\nuser=service\n").unwrap();
        let file = file.to_str().unwrap();
        let variables =
            [("PGSERVICEFILE", file), ("PGHOST", "env"), ("PGPORT", "3"), ("PGUSER", "env"), ("PGDATABASE", "env")];
        assert_eq!(shown(None, &variables), "env@env:3/env");
        assert_eq!(shown(Some("service=s user=u"), &variables), "u@service:2/env");
        assert_eq!(shown(Some("postgres://h/d?service=s"), &variables), "service@h:2/d");
        let error = resolve(Some("service=t"), &variables).unwrap_err();
        assert!(error.to_string().contains("\"t\""), "{error}");
    }

    #[test]
    fn hosts_and_ports_pair_up() {
        for (dsn, expected) in [
            ("host=a,b port=1,2", "me@a:1,b:2/"),
            ("host=a,b port=7", "me@a:7,b:7/"),
            ("host=a,b port=7,", "me@a:7,b:5432/"),
            ("host=/run/pg port=1", "me@/run/pg/.s.PGSQL.1/"),
            ("hostaddr=::1", "me@[::1]:5432/"),
            ("postgres://[::1]:5433/d", "me@[::1]:5433/d"),
            ("host=a host=b", "me@b:5432/"),
        ] {
            assert_eq!(shown(Some(dsn), &[]), expected, "{dsn}");
        }
        let both = resolve(Some("host=name hostaddr=127.0.0.1"), &[]).unwrap();
        assert!(matches!(&both.hosts[0].address, Address::Tcp { name, address: Some(_) } if name == "name"));
    }

    #[test]
    fn bad_options_are_named() {
        for (dsn, named) in [
            ("hots=a", "hots"),
            ("port=0", "port"),
            ("port=99999", "port"),
            ("host=a,b port=1,2,3", "port"),
            ("host=a,b hostaddr=::1", "hostaddr"),
            ("hostaddr=a", "hostaddr"),
            ("sslmode=on", "sslmode"),
            ("sslmode=require sslrootcert=system", "sslrootcert"),
            ("sslnegotiation=direct", "sslnegotiation"),
            ("channel_binding=x", "channel_binding"),
            ("connect_timeout=x", "connect_timeout"),
            ("sslcrl=x", "sslcrl"),
            ("require_auth=scram-sha-256", "require_auth"),
            ("target_session_attrs=read-write", "target_session_attrs"),
            ("gssencmode=require", "gssencmode=require"),
        ] {
            let error = resolve(Some(dsn), &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(named), "{dsn}: {error}");
        }
        assert!(resolve(Some("target_session_attrs=any gssencmode=prefer"), &[]).is_ok());
        assert!(resolve(Some("gssencmode=disable"), &[]).is_ok());
        assert!(resolve(None, &[("PGGSSENCMODE", "require")]).is_err());
        for dsn in [
            "sslpassword=hunter2",
            "postgre://me:hunter2@h/d?sslmode=require",
            "host:h,password:hunter2,user=me",
            "postgres://me:hun/hunter2@h/d",
            "postgres://me:x@hunter2@h/d",
        ] {
            let error = resolve(Some(dsn), &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!error.to_string().contains("hun"), "{dsn}: {error}");
        }
    }

    #[test]
    fn modes_and_defaults() {
        let options = resolve(Some("host=h"), &[]).unwrap();
        assert_eq!((options.tls.mode, options.channel_binding), (SslMode::Prefer, ChannelBinding::Prefer));
        assert_eq!(options.connect_timeout, Some(Duration::from_secs(30)));
        assert_eq!(resolve(Some("connect_timeout=0"), &[]).unwrap().connect_timeout, None);
        assert_eq!(resolve(Some("connect_timeout=1"), &[]).unwrap().connect_timeout, Some(Duration::from_secs(2)));
        assert_eq!(resolve(Some("sslrootcert=system"), &[]).unwrap().tls.mode, SslMode::VerifyFull);
        assert_eq!(resolve(None, &[("PGSSLMODE", "verify-ca")]).unwrap().tls.mode, SslMode::VerifyCa);
    }

    #[test]
    fn passwords_hide_and_are_found() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "h:5432:replication:me:repl\nlocalhost:*:*:me:local\n*:*:me:me:mine\n").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        let path = file.path().to_str().unwrap();
        let found = |dsn, replication| {
            let options = resolve(Some(dsn), &[("PGPASSFILE", path)]).unwrap();
            options.password_for(&options.hosts[0], replication).map(|secret| secret.reveal().to_owned())
        };
        assert_eq!(found("host=h", true).as_deref(), Some("repl"));
        assert_eq!(found("host=h", false).as_deref(), Some("mine"));
        assert_eq!(found("host=/tmp", true).as_deref(), Some("local"));
        assert_eq!(found("host=h dbname=other", false), None);
        let given = resolve(Some("host=h password=hush"), &[("PGPASSFILE", path)]).unwrap();
        assert_eq!(given.password_for(&given.hosts[0], true).map(Secret::reveal), Some("hush"));
        assert!(!format!("{given:?}").contains("hush"));
        assert!(!format!("{given:?}").contains("repl\""));
    }
}
