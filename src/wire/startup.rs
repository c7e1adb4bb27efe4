//! From an open socket to a server that is ready: encryption, the startup message, authentication.

use super::connection::Mode;
use super::framing::{Message, malformed, unexpected};
use super::options::{Address, ChannelBinding, ConnectOptions, Host, SslMode};
use super::server_error::{ServerError, server_error};
use super::socket::{self, Channel, Duplex};
use super::tls;
use crate::error::{Error, ErrorKind, Result};
use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use postgres_protocol::message::backend::{self, AuthenticationSaslBody};
use postgres_protocol::message::frontend;
use std::collections::HashMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server that is ready for its first command.
pub(super) struct Session {
    pub(super) channel: Channel,
    pub(super) parameters: HashMap<String, String>,
    pub(super) notices: Vec<ServerError>,
    pub(super) encrypted: bool,
}

/// What one attempt does about encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encrypt {
    Never,
    IfOffered,
    Must,
}

/// An attempt that failed, and whether it was encrypted by then.
struct Failure {
    error: Error,
    encrypted: bool,
}

impl Failure {
    fn plain(error: Error) -> Self {
        Self { error, encrypted: false }
    }
}

/// Connects to one host, with the attempts that its `sslmode` stands for.
pub(super) async fn establish(options: &ConnectOptions, host: &Host, mode: Mode) -> Result<Session> {
    let local = matches!(host.address, Address::Unix(_));
    let (first, second) = match options.tls.mode {
        // libpq never encrypts on a Unix socket, whatever the mode.
        _ if local => (Encrypt::Never, None),
        SslMode::Disable => (Encrypt::Never, None),
        SslMode::Allow => (Encrypt::Never, Some(Encrypt::Must)),
        SslMode::Prefer => (Encrypt::IfOffered, Some(Encrypt::Never)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Encrypt::Must, None),
    };
    let failure = match attempt(options, host, mode, first).await {
        Ok(session) => return Ok(session),
        Err(failure) => failure,
    };
    let tls_failed = failure.encrypted && server_error(&failure.error).is_none();
    let again = match second {
        // pg_hba.conf may have a line for the other kind of connection.
        Some(Encrypt::Must) => refused_by_rules(&failure.error),
        Some(_) => failure.encrypted && (refused_by_rules(&failure.error) || tls_failed),
        None => false,
    };
    match second.filter(|_| again) {
        None => Err(failure.error),
        // Where both fail, the first failure is the one that the user's setting names.
        Some(second) => attempt(options, host, mode, second).await.map_err(|_| failure.error),
    }
}

fn refused_by_rules(error: &Error) -> bool {
    server_error(error).is_some_and(|error| error.code == "28000")
}

async fn attempt(options: &ConnectOptions, host: &Host, mode: Mode, encrypt: Encrypt) -> Result<Session, Failure> {
    let mut stream = socket::connect(host, options).await.map_err(Failure::plain)?;
    let mut binding = None;
    let mut encrypted = false;
    let direct = options.tls.direct && encrypt == Encrypt::Must;
    if direct || (encrypt != Encrypt::Never && offers_tls(&mut stream, encrypt).await.map_err(Failure::plain)?) {
        encrypted = true;
        let secured = tls::handshake(stream, host, &options.tls).await;
        let secured = secured.map_err(|error| Failure { error, encrypted })?;
        (stream, binding) = (secured.stream, secured.end_point);
    }
    let login = Login { options, host, mode, encrypted, end_point: binding };
    login.run(Channel::new(stream)).await.map_err(|error| Failure { error, encrypted })
}

/// Asks for TLS. Exactly one byte is read: what follows it belongs to the handshake, and to nobody in between.
async fn offers_tls(stream: &mut Box<dyn Duplex>, encrypt: Encrypt) -> Result<bool> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(socket::lost)?;
    stream.flush().await.map_err(socket::lost)?;
    match stream.read_u8().await.map_err(socket::lost)? {
        b'S' => Ok(true),
        b'N' if encrypt == Encrypt::Must => Err(Error::new(
            ErrorKind::Config,
            "the server does not offer TLS, which \
            sslmode demands",
        )
        .hint("switch ssl on in the server, or ask for less with PGSSLMODE=prefer")),
        b'N' => Ok(false),
        _ => Err(unexpected("no answer to the request for TLS")),
    }
}

/// The startup message and authentication.
struct Login<'a> {
    options: &'a ConnectOptions,
    host: &'a Host,
    mode: Mode,
    encrypted: bool,
    end_point: Option<Vec<u8>>,
}

impl Login<'_> {
    async fn run(self, mut channel: Channel) -> Result<Session> {
        channel.send(&self.startup_message()?).await?;
        let bound = self.authenticate(&mut channel).await?;
        if self.options.channel_binding == ChannelBinding::Require && !bound {
            return Err(self.no_binding());
        }
        let mut session =
            Session { channel, parameters: HashMap::new(), notices: Vec::new(), encrypted: self.encrypted };
        loop {
            match session.channel.receive().await? {
                Message::Other(backend::Message::ParameterStatus(body)) => {
                    let (name, value) = (body.name().map_err(malformed)?, body.value().map_err(malformed)?);
                    session.parameters.insert(name.to_owned(), value.to_owned());
                }
                Message::Other(backend::Message::BackendKeyData(_)) => {}
                Message::Other(backend::Message::NoticeResponse(body)) => {
                    session.notices.push(ServerError::read(body.fields())?);
                }
                Message::Other(backend::Message::ReadyForQuery(_)) => return Ok(session),
                Message::Other(backend::Message::ErrorResponse(body)) => return Err(self.refusal(&body)?),
                _ => return Err(unexpected("something else than its parameters")),
            }
        }
    }

    fn startup_message(&self) -> Result<BytesMut> {
        let options = self.options;
        let mut parameters = vec![
            ("user", options.user.as_str()),
            ("application_name", options.application_name.as_str()),
            ("client_encoding", "UTF8"),
        ];
        match self.mode {
            Mode::Replication => parameters.push(("replication", "true")),
            Mode::Sql => parameters.push(("database", options.database.as_deref().unwrap_or(&options.user))),
        }
        parameters.extend(options.server_options.as_deref().map(|text| ("options", text)));
        let mut message = BytesMut::new();
        frontend::startup_message(parameters, &mut message)
            .map_err(|error| Error::new(ErrorKind::Config, "a connection option cannot be sent").because(error))?;
        Ok(message)
    }

    /// Answers until the server is content; whether that bound the channel.
    async fn authenticate(&self, channel: &mut Channel) -> Result<bool> {
        let mut bound = false;
        let mut answer = BytesMut::new();
        loop {
            let Message::Other(message) = channel.receive().await? else { return Err(unexpected("a copy")) };
            match message {
                backend::Message::AuthenticationOk => return Ok(bound),
                backend::Message::AuthenticationCleartextPassword => {
                    self.no_weaker_than_binding()?;
                    frontend::password_message(self.password()?, &mut answer).map_err(malformed)?;
                }
                backend::Message::AuthenticationMd5Password(body) => {
                    self.no_weaker_than_binding()?;
                    let hash = md5_hash(self.options.user.as_bytes(), self.password()?, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut answer).map_err(malformed)?;
                }
                backend::Message::AuthenticationSasl(body) => {
                    bound = self.scram(channel, &body).await?;
                    continue;
                }
                backend::Message::ErrorResponse(body) => return Err(self.refusal(&body)?),
                backend::Message::NoticeResponse(_) => continue,
                backend::Message::AuthenticationGss
                | backend::Message::AuthenticationSspi
                | backend::Message::AuthenticationKerberosV5 => {
                    return Err(Error::new(ErrorKind::Config, "the server asks for Kerberos, which is not supported")
                        .hint("let pg_hba.conf ask this role for scram-sha-256"));
                }
                _ => return Err(unexpected("an unknown way to authenticate")),
            }
            channel.send(&answer.split()).await?;
        }
    }

    /// One SCRAM-SHA-256 exchange; whether it bound the channel.
    async fn scram(&self, channel: &mut Channel, offered: &AuthenticationSaslBody) -> Result<bool> {
        let offered: Vec<String> = offered.mechanisms().map(|name| Ok(name.to_owned())).collect().map_err(malformed)?;
        let (mechanism, binding) = self.mechanism(&offered)?;
        let mut scram = ScramSha256::new(self.password()?, binding);
        let mut answer = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut answer).map_err(malformed)?;
        channel.send(&answer.split()).await?;
        match channel.receive().await? {
            Message::Other(backend::Message::AuthenticationSaslContinue(body)) => {
                scram.update(body.data()).map_err(|error| self.not_proven(error))?;
            }
            Message::Other(backend::Message::ErrorResponse(body)) => return Err(self.refusal(&body)?),
            _ => return Err(unexpected("something else than the next step of SCRAM")),
        }
        frontend::sasl_response(scram.message(), &mut answer).map_err(malformed)?;
        channel.send(&answer.split()).await?;
        match channel.receive().await? {
            // The server proves that it knows the password too.
            Message::Other(backend::Message::AuthenticationSaslFinal(body)) => {
                scram.finish(body.data()).map_err(|error| self.not_proven(error))?;
            }
            Message::Other(backend::Message::ErrorResponse(body)) => return Err(self.refusal(&body)?),
            _ => return Err(unexpected("something else than the end of SCRAM")),
        }
        Ok(mechanism == sasl::SCRAM_SHA_256_PLUS)
    }

    /// Which of the offered mechanisms to use, and what to say about channel binding (RFC 5802: "y" tells a server that has
    /// it that somebody hid its offer).
    fn mechanism(&self, offered: &[String]) -> Result<(&'static str, sasl::ChannelBinding)> {
        let offers = |name: &str| offered.iter().any(|offer| offer == name);
        let wanted = self.encrypted && self.options.channel_binding != ChannelBinding::Disable;
        match self.end_point.clone().filter(|_| wanted) {
            Some(hash) if offers(sasl::SCRAM_SHA_256_PLUS) => {
                Ok((sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash)))
            }
            _ if self.options.channel_binding == ChannelBinding::Require => Err(self.no_binding()),
            Some(_) if offers(sasl::SCRAM_SHA_256) => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
            None if offers(sasl::SCRAM_SHA_256) => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
            _ => Err(unexpected("no SASL mechanism that is known here")),
        }
    }

    fn no_weaker_than_binding(&self) -> Result<()> {
        if self.options.channel_binding == ChannelBinding::Require { Err(self.no_binding()) } else { Ok(()) }
    }

    fn no_binding(&self) -> Error {
        Error::new(ErrorKind::Denied, "channel binding is required, and the server did not authenticate with it")
            .hint("it needs TLS and scram-sha-256; or ask for less with PGCHANNELBINDING=prefer")
    }

    fn not_proven(&self, cause: std::io::Error) -> Error {
        Error::new(ErrorKind::Denied, "the server did not prove that it knows the password").because(cause)
    }

    fn password(&self) -> Result<&[u8]> {
        let secret = self.options.password_for(self.host, self.mode == Mode::Replication);
        secret.map(|secret| secret.reveal().as_bytes()).ok_or_else(|| {
            let hint = match &self.options.passfile.ignored {
                Some((path, why)) => format!("the password file {} was not used: {why}", path.display()),
                None => {
                    "set PGPASSWORD, or put a line into the password file ~/.pgpass (database \"replication\")".into()
                }
            };
            let user = &self.options.user;
            Error::new(
                ErrorKind::Denied,
                format!(
                    "the server asks for the password of role \"{user}\", and none is \
                known"
                ),
            )
            .hint(hint)
        })
    }

    fn refusal(&self, body: &backend::ErrorResponseBody) -> Result<Error> {
        Ok(ServerError::read(body.fields())?.into_error(&self.options.user))
    }
}
