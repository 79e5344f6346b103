use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, GetOptions, Identity, KeyValue,
    LeaseTimeToLiveOptions, PutOptions, TlsOptions, Txn, TxnOp, WatchOptions, WatchStream,
};
use tokio::fs;
use tokio::time::timeout;

use super::seen::Seen;
use crate::planes::{EtcdConfig, TlsConfig};

/// How long one operation may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer that is read. All the records of a deployment come in one.
const LARGEST_ANSWER_BYTES: usize = 256 << 20;
/// A connection that says nothing for this long is asked whether it is there; etcd takes more
/// frequent questions for an attack.
const PING: Duration = Duration::from_secs(5);

/// The codes of gRPC by which etcd does not put a record: a lease that is not there, a user without
/// the right.
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
/// What it says of a record that is too large: itself, and gRPC before it where it is much too large.
const TOO_LARGE: [&str; 2] = ["request is too large", "larger than max"];
/// What it says of a token that it does not take any more, beside the code that the client knows: one
/// that is older than the latest change of users or roles, and one of a time before there were any.
const STALE_TOKEN: [&str; 2] = ["revision of auth store is old", "user name is empty"];

/// Why etcd did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum EtcdError {
    /// No answer in time.
    #[error("etcd does not answer")]
    Silent,
    /// The lease has ended.
    #[error("the lease has ended")]
    LeaseEnded,
    /// It answers, and does not take a record: it is too large, or not this user's to write.
    #[error("etcd does not take the record")]
    Refused(#[source] etcd_client::Error),
    /// The watch has ended, for the server's reason.
    #[error("etcd ended a watch: {0}")]
    WatchEnded(String),
    /// A certificate or key cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// Whatever the client says.
    #[error(transparent)]
    Client(#[from] etcd_client::Error),
}

/// What is asked of etcd, each with a bound on its time.
#[derive(Clone)]
pub(super) struct Access {
    client: Client,
    has_user: bool,
}

impl Access {
    /// Prepares a connection to the members of a cluster, each `HOST:PORT`; with a user, also makes
    /// it.
    pub(super) async fn open(members: &[String], config: &EtcdConfig) -> Result<Self, EtcdError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(PATIENCE)
            .with_keep_alive(PING, PATIENCE)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let (Some(user), Some(password)) = (&config.user, &config.password) {
            options = options.with_user(user, password.reveal());
        }
        if config.tls.is_on() {
            options = options.with_tls(tls(&config.tls).await?);
        }
        let client = in_time(Client::connect(members, Some(options))).await?;
        Ok(Self {
            client,
            has_user: config.user.is_some(),
        })
    }

    /// All keys that begin with `prefix`, as of one moment.
    pub(super) async fn list(&self, prefix: &str) -> Result<(Vec<KeyValue>, Seen), EtcdError> {
        let get = |client: Client| async move {
            let options = GetOptions::new().with_prefix();
            let kv = client.kv_client();
            let mut kv = kv.max_decoding_message_size(LARGEST_ANSWER_BYTES);
            kv.get(prefix, Some(options)).await
        };
        let mut answer = self.call(get).await?;
        let seen = answer.header().map(Seen::of).ok_or(EtcdError::Silent)?;
        Ok((answer.take_kvs(), seen))
    }

    /// Where etcd is in its history; asks for a key that this process may read.
    pub(super) async fn probe(&self, key: &str) -> Result<Seen, EtcdError> {
        let count = |client: Client| async move {
            let options = GetOptions::new().with_count_only();
            client.kv_client().get(key, Some(options)).await
        };
        let answer = self.call(count).await?;
        answer.header().map(Seen::of).ok_or(EtcdError::Silent)
    }

    /// Watches all keys that begin with `prefix`, from `revision` on.
    pub(super) async fn watch(
        &self,
        prefix: &str,
        revision: i64,
    ) -> Result<WatchStream, EtcdError> {
        let begin = |client: Client| async move {
            let options = WatchOptions::new()
                .with_prefix()
                .with_start_revision(revision);
            let watch = client.watch_client();
            let mut watch = watch.max_decoding_message_size(LARGEST_ANSWER_BYTES);
            watch.watch(prefix, Some(options)).await
        };
        self.call(begin).await
    }

    /// A new lease: its id, and the time to live that it got, which may be longer than `ttl`.
    pub(super) async fn grant(&self, ttl: Duration) -> Result<(i64, Duration), EtcdError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let grant =
            |client: Client| async move { client.lease_client().grant(seconds, None).await };
        let answer = self.call(grant).await?;
        let granted = u64::try_from(answer.ttl()).unwrap_or_default();
        Ok((answer.id(), Duration::from_secs(granted)))
    }

    /// Renews a lease for the time to live that it was granted with.
    pub(super) async fn renew(&self, lease: i64) -> Result<(), EtcdError> {
        // The stream is given up after its first answer, and a new one is opened for the next
        // renewal: then a stream that is stuck costs one renewal and no more.
        let renew = |client: Client| async move { client.lease_client().keep_alive(lease).await };
        match self.call(renew).await {
            Ok(_) => Ok(()),
            Err(EtcdError::Client(etcd_client::Error::LeaseKeepAliveError(_))) => {
                Err(EtcdError::LeaseEnded)
            }
            Err(error) => {
                self.refresh_token().await?;
                Err(error)
            }
        }
    }

    /// Ends a lease, and with it what lives by it.
    pub(super) async fn revoke(&self, lease: i64) -> Result<(), EtcdError> {
        let revoke = |client: Client| async move { client.lease_client().revoke(lease).await };
        self.call(revoke).await.map(drop)
    }

    /// The keys that live by a lease.
    pub(super) async fn keys_of(&self, lease: i64) -> Result<HashSet<Vec<u8>>, EtcdError> {
        let ask = |client: Client| async move {
            let options = LeaseTimeToLiveOptions::new().with_keys();
            let mut leases = client.lease_client();
            leases.time_to_live(lease, Some(options)).await
        };
        let answer = self.call(ask).await?;
        Ok(answer.keys().iter().cloned().collect())
    }

    /// The value of a key, if it is there.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, EtcdError> {
        let get = |client: Client| async move { client.kv_client().get(key, None).await };
        let mut answer = self.call(get).await?;
        Ok(answer.take_kvs().pop().map(|found| found.value().to_vec()))
    }

    /// Puts a key that lives by a lease; tells where etcd is then.
    pub(super) async fn put(&self, key: &str, value: &[u8], lease: i64) -> Result<Seen, EtcdError> {
        let put = |client: Client| async move {
            let options = PutOptions::new().with_lease(lease);
            client.kv_client().put(key, value, Some(options)).await
        };
        let answer = self.call(put).await.map_err(of_a_put)?;
        answer.header().map(Seen::of).ok_or(EtcdError::Silent)
    }

    /// Puts `new` in the place of `old`, and then removes it, so that whoever watches sees both.
    /// A key whose value is another one by now is left alone.
    pub(super) async fn retire(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), EtcdError> {
        let is = |value: &[u8]| Compare::value(key, CompareOp::Equal, value);
        let keep_lease = PutOptions::new().with_ignore_lease();
        let say = TxnOp::put(key, new, Some(keep_lease));
        self.txn(Txn::new().when([is(old)]).and_then([say])).await?;
        let remove = TxnOp::delete(key, None);
        self.txn(Txn::new().when([is(new)]).and_then([remove]))
            .await
    }

    async fn txn(&self, txn: Txn) -> Result<(), EtcdError> {
        let carry_out = |client: Client| {
            let txn = txn.clone();
            async move { client.kv_client().txn(txn).await }
        };
        self.call(carry_out).await.map(drop)
    }

    /// One operation; once more with a new token, where etcd does not take the one that it came
    /// with.
    async fn call<T, F>(&self, operation: impl Fn(Client) -> F) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        match in_time(operation(self.client.clone())).await {
            Err(error) if self.has_user && is_stale_token(&error) => {
                self.refresh_token().await?;
                in_time(operation(self.client.clone())).await
            }
            answer => answer,
        }
    }

    /// Gets a new token, where a user was given: a server that was restarted does not know the old
    /// one, and not every call gets a new one by itself.
    async fn refresh_token(&self) -> Result<(), EtcdError> {
        match self.has_user {
            true => in_time(self.client.refresh_token()).await,
            false => Ok(()),
        }
    }
}

fn is_stale_token(error: &EtcdError) -> bool {
    let EtcdError::Client(etcd_client::Error::GRpcStatus(status)) = error else {
        return false;
    };
    says(status.message(), &STALE_TOKEN)
}

/// What an answer to a put says, more closely.
fn of_a_put(error: EtcdError) -> EtcdError {
    let EtcdError::Client(etcd_client::Error::GRpcStatus(status)) = error else {
        return error;
    };
    match i32::from(status.code()) {
        NOT_FOUND => EtcdError::LeaseEnded,
        PERMISSION_DENIED => EtcdError::Refused(status.into()),
        _ if says(status.message(), &TOO_LARGE) => EtcdError::Refused(status.into()),
        _ => EtcdError::Client(status.into()),
    }
}

fn says(message: &str, any_of: &[&str]) -> bool {
    any_of.iter().any(|words| message.contains(words))
}

async fn in_time<T>(
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, EtcdError> {
    match timeout(PATIENCE, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(EtcdError::Silent),
    }
}

async fn tls(config: &TlsConfig) -> Result<TlsOptions, EtcdError> {
    let mut options = TlsOptions::new();
    options = match &config.ca {
        Some(ca) => options.ca_certificate(Certificate::from_pem(read(ca).await?)),
        None => options.with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&config.cert, &config.key) {
        let identity = Identity::from_pem(read(cert).await?, read(key).await?);
        options = options.identity(identity);
    }
    Ok(options)
}

async fn read(path: &Path) -> Result<Vec<u8>, EtcdError> {
    fs::read(path)
        .await
        .map_err(|source| EtcdError::Unreadable {
            path: path.display().to_string(),
            source,
        })
}
