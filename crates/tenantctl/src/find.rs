//! A laboratory by slug or id, and all else by id or its first digits, with help for a name that is mistyped.

use std::{fmt, str::FromStr};

use model::{
    ArchiveId, DeliveryId, IdPrefix, IdPrefixError, OperationId, Slug, SlugError, TenantId, WebhookId,
};
use registry::{IdKind, OperationFilter, PAGE_MAX, RegistryClient, Tenant, TenantFilter};
use uuid::Uuid;

use crate::outcome::Refusal;

/// How a laboratory was named.
#[derive(Debug, Clone)]
pub(crate) enum TenantRef {
    Id(TenantId),
    Slug(Slug),
}

impl FromStr for TenantRef {
    type Err = SlugError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // An id that begins with a letter has the shape of a slug too; no laboratory is named so.
        match text.parse::<TenantId>() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => Slug::parse(text).map(Self::Slug),
        }
    }
}

impl fmt::Display for TenantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Slug(slug) => slug.fmt(f),
        }
    }
}

/// The laboratory, or an error that helps.
pub(crate) async fn tenant(client: &RegistryClient, wanted: &TenantRef) -> anyhow::Result<Tenant> {
    match tenant_opt(client, wanted).await? {
        Some(tenant) => Ok(tenant),
        None => Err(Refusal::NotFound(not_found(client, wanted).await?).into()),
    }
}

pub(crate) async fn tenant_opt(
    client: &RegistryClient,
    wanted: &TenantRef,
) -> anyhow::Result<Option<Tenant>> {
    Ok(match wanted {
        TenantRef::Id(id) => registry::tenant_by_id(client, *id).await?,
        TenantRef::Slug(slug) => registry::tenant_by_slug(client, slug).await?,
    })
}

/// The id of a laboratory whose row may be gone, or was never finished: its archives and operations stay.
pub(crate) async fn tenant_id(client: &RegistryClient, wanted: &TenantRef) -> anyhow::Result<TenantId> {
    let known = match (tenant_opt(client, wanted).await?, wanted) {
        (Some(tenant), _) => Some(tenant.id),
        (None, TenantRef::Id(id)) => Some(*id),
        (None, TenantRef::Slug(slug)) => match archived(client, slug).await? {
            Some(id) => Some(id),
            None => registry::operation_tenant_by_slug(client, slug).await?,
        },
    };
    match known {
        Some(id) => Ok(id),
        None => Err(Refusal::NotFound(not_found(client, wanted).await?).into()),
    }
}

/// The laboratory that had this slug last and was archived.
async fn archived(client: &RegistryClient, slug: &Slug) -> anyhow::Result<Option<TenantId>> {
    let archives = registry::archives_list(client, None, None, PAGE_MAX).await?;
    Ok(archives
        .into_iter()
        .find(|archive| archive.tenant_slug == *slug)
        .map(|archive| archive.tenant))
}

async fn not_found(client: &RegistryClient, wanted: &TenantRef) -> anyhow::Result<String> {
    let TenantRef::Slug(slug) = wanted else {
        return Ok(format!(
            "there is no laboratory {wanted}; `tenantctl list` shows all"
        ));
    };
    if let Some(id) = archived(client, slug).await? {
        return Ok(format!(
            "there is no laboratory {slug}; it was offboarded and its archive is kept: `tenantctl archives list --tenant {id}`"
        ));
    }
    let others = registry::tenants_list(client, &TenantFilter::default(), None, PAGE_MAX).await?;
    Ok(
        match nearest(slug.as_str(), others.iter().map(|tenant| tenant.slug.as_str())) {
            Some(nearest) => {
                format!("there is no laboratory {slug}; did you mean {nearest}? `tenantctl list` shows all")
            }
            None => format!("there is no laboratory {slug}; `tenantctl list` shows all"),
        },
    )
}

/// The name that fewest slips away from what was typed, if they are few for its length: a third of it, as
/// cargo counts.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let few = (name.chars().count() / 3).max(1);
    known
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(slips, _)| *slips <= few)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// What an id names in the registry.
pub(crate) trait Identified: From<Uuid> + FromStr {
    const KIND: IdKind;
    const NOUN: &'static str;
    /// The command that shows them.
    const LISTED_BY: &'static str;
}

impl Identified for OperationId {
    const KIND: IdKind = IdKind::Operation;
    const NOUN: &'static str = "operation";
    const LISTED_BY: &'static str = "tenantctl operations list";
}

impl Identified for ArchiveId {
    const KIND: IdKind = IdKind::Archive;
    const NOUN: &'static str = "archive";
    const LISTED_BY: &'static str = "tenantctl archives list";
}

impl Identified for WebhookId {
    const KIND: IdKind = IdKind::Webhook;
    const NOUN: &'static str = "webhook";
    const LISTED_BY: &'static str = "tenantctl webhooks list";
}

impl Identified for DeliveryId {
    const KIND: IdKind = IdKind::Delivery;
    const NOUN: &'static str = "delivery";
    const LISTED_BY: &'static str = "tenantctl webhooks deliveries";
}

/// An id or its first digits.
#[derive(Debug, Clone)]
pub(crate) enum IdRef<T> {
    Id(T),
    Prefix(IdPrefix),
}

impl<T: Identified> FromStr for IdRef<T> {
    type Err = IdPrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<T>() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => text.parse().map(Self::Prefix),
        }
    }
}

impl<T: Identified + Copy> IdRef<T> {
    /// The id. One that was given whole is not looked for.
    pub(crate) async fn id(&self, client: &RegistryClient) -> anyhow::Result<T> {
        let prefix = match self {
            Self::Id(id) => return Ok(*id),
            Self::Prefix(prefix) => prefix,
        };
        let found = registry::ids_by_prefix(client, T::KIND, prefix).await?;
        let (noun, listed_by) = (T::NOUN, T::LISTED_BY);
        match found.as_slice() {
            [only] => Ok(T::from(*only)),
            [] => Err(Refusal::NotFound(format!(
                "no {noun} has an id that begins with {prefix}; `{listed_by}` shows them"
            ))
            .into()),
            several => {
                let ids: Vec<String> = several.iter().map(|id| format!("\n  {id}")).collect();
                Err(Refusal::Usage(format!(
                    "{prefix} begins the id of more than one {noun}; give more of its digits:{}",
                    ids.concat()
                ))
                .into())
            }
        }
    }
}

/// An operation by its id, the first digits of that, or the laboratory that it is on.
#[derive(Debug, Clone)]
pub(crate) enum OperationRef {
    Id(IdRef<OperationId>),
    /// The one that is under way there, else the latest.
    On(Slug),
}

impl FromStr for OperationRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Ids begin with a digit, since they begin with the time (UUID version 7), and slugs with a letter.
        if let Ok(id) = text.parse::<OperationId>() {
            return Ok(Self::Id(IdRef::Id(id)));
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return text
                .parse()
                .map(Self::Id)
                .map_err(|error: IdPrefixError| error.to_string());
        }
        Slug::parse(text)
            .map(Self::On)
            .map_err(|error| format!("{error}; or {IdPrefixError}"))
    }
}

impl OperationRef {
    pub(crate) async fn id(&self, client: &RegistryClient) -> anyhow::Result<OperationId> {
        let slug = match self {
            Self::Id(id) => return id.id(client).await,
            Self::On(slug) => slug,
        };
        let tenant = tenant_id(client, &TenantRef::Slug(slug.clone())).await?;
        for live in [true, false] {
            let filter = OperationFilter {
                tenant: Some(tenant),
                live,
                ..OperationFilter::default()
            };
            if let Some(found) = registry::operations_list(client, &filter, None, 1).await?.pop() {
                return Ok(found.id);
            }
        }
        Err(Refusal::NotFound(format!(
            "there is no operation on {slug} yet; `tenantctl operations list` shows the latest of all"
        ))
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_an_id_and_all_else_a_slug() {
        assert!(matches!(
            "0190a5b0-0000-7000-8000-000000000001".parse(),
            Ok(TenantRef::Id(_))
        ));
        assert!(matches!(
            "a190a5b0-0000-7000-8000-000000000001".parse(),
            Ok(TenantRef::Id(_))
        ));
        assert!(matches!("acme-lab".parse(), Ok(TenantRef::Slug(_))));
        assert!("Acme".parse::<TenantRef>().is_err());
    }

    #[test]
    fn a_near_miss_is_offered_and_a_far_one_is_not() {
        let known = || ["acme-lab", "echo-lab", "north"].into_iter();
        assert_eq!(nearest("acme-lb", known()), Some("acme-lab"));
        for far in ["zebra", "nosuch-lab", "lab"] {
            assert_eq!(nearest(far, known()), None, "{far}");
        }
    }
}
