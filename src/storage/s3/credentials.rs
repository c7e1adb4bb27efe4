//! Where the signing keys come from: the settings, or the usual AWS places.

use super::http::Http;
use crate::config::S3Credentials;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::config::Region;
use aws_smithy_async::rt::sleep::TokioSleep;
use tokio::sync::OnceCell;

/// The provider of these credentials. Nothing is asked for until the first request is signed.
pub(super) fn provider(credentials: &S3Credentials, region: &Region, http: &Http) -> SharedCredentialsProvider {
    match credentials {
        S3Credentials::Static { access_key, secret_key, session_token } => {
            SharedCredentialsProvider::new(Credentials::new(
                access_key.clone(),
                secret_key.reveal(),
                session_token.as_ref().map(|token| token.reveal().to_owned()),
                None,
                "settings",
            ))
        }
        S3Credentials::AwsChain => {
            SharedCredentialsProvider::new(Chain { region: region.clone(), http: http.clone(), chain: OnceCell::new() })
        }
    }
}

/// The usual AWS places, in their usual order, looked at when first needed. The region is given, never searched for.
#[derive(Debug)]
struct Chain {
    region: Region,
    http: Http,
    chain: OnceCell<DefaultCredentialsChain>,
}

impl ProvideCredentials for Chain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let build = || async {
                let config = ProviderConfig::without_region()
                    .with_http_client(self.http.clone())
                    .with_sleep_impl(TokioSleep::new())
                    .with_region(Some(self.region.clone()));
                DefaultCredentialsChain::builder().configure(config).region(self.region.clone()).build().await
            };
            self.chain.get_or_init(build).await.provide_credentials().await
        })
    }
}
