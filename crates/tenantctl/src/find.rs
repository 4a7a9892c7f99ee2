//! A laboratory by slug or id, with help for who mistyped.

use std::{fmt, str::FromStr};

use model::{Slug, SlugError, TenantId};
use registry::{PAGE_MAX, RegistryClient, Tenant, TenantFilter};

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
        // An id that begins with a letter has the shape of a slug too; nobody names a laboratory so.
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

/// The id of a laboratory whose row may be gone: its archives and operations stay.
pub(crate) async fn tenant_id(client: &RegistryClient, wanted: &TenantRef) -> anyhow::Result<TenantId> {
    match (tenant_opt(client, wanted).await?, wanted) {
        (Some(tenant), _) => Ok(tenant.id),
        (None, TenantRef::Id(id)) => Ok(*id),
        (None, TenantRef::Slug(slug)) => match archived(client, slug).await? {
            Some(id) => Ok(id),
            None => Err(Refusal::NotFound(not_found(client, wanted).await?).into()),
        },
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
    let mut message = format!("there is no laboratory {wanted}");
    if let TenantRef::Slug(slug) = wanted {
        if let Some(id) = archived(client, slug).await? {
            message.push_str(&format!(
                "; it was offboarded and its archive is kept: `tenantctl archives list --tenant {id}`"
            ));
        }
        let others = registry::tenants_list(client, &TenantFilter::default(), None, PAGE_MAX).await?;
        if let Some(nearest) = nearest(slug.as_str(), others.iter().map(|tenant| tenant.slug.as_str())) {
            message.push_str(&format!("; did you mean {nearest}?"));
        }
    }
    message.push_str("; `tenantctl list` shows all");
    Ok(message)
}

/// The most similar name, if one is similar at all (Jaro-Winkler, from which clap suggests too).
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
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
        let known = || ["acme-lab", "north"].into_iter();
        assert_eq!(nearest("acme-lb", known()), Some("acme-lab"));
        assert_eq!(nearest("zebra", known()), None);
    }
}
