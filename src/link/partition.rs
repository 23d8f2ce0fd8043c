//! AWS's partitions: the domains of their endpoints.

/// A group of regions whose endpoints share their domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Partition {
    /// The beginning of its regions' names; empty for the one that has all others.
    region_prefix: &'static str,
    domain: &'static str,
    dual_stack_domain: &'static str,
}

/// The variants of an endpoint that the user may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variant {
    /// `AWS_USE_FIPS_ENDPOINT`.
    pub fips: bool,
    /// `AWS_USE_DUALSTACK_ENDPOINT`.
    pub dual_stack: bool,
}

/// Returns the host of a service's endpoint in a region, by the rules of the AWS SDKs.
pub(crate) fn endpoint(service: &str, region: &str, variant: Variant) -> String {
    let partition = of(region);
    let domain = if variant.dual_stack { partition.dual_stack_domain } else { partition.domain };
    let fips = if variant.fips { "-fips" } else { "" };
    format!("{service}{fips}.{region}.{domain}")
}

/// The domains of all partitions, dual-stack ones included. Interface endpoints (`vpce-…`) lie below them.
pub(super) fn domains() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|partition| [partition.domain, partition.dual_stack_domain])
}

fn of(region: &str) -> &'static Partition {
    let [commercial, others @ ..] = &TABLE;
    others.iter().find(|partition| region.starts_with(partition.region_prefix)).unwrap_or(commercial)
}

/// As in the AWS SDKs' `partitions.json`.
const TABLE: [Partition; 7] = [
    // With AWS GovCloud (US), a partition whose domains are the same.
    Partition { region_prefix: "", domain: "amazonaws.com", dual_stack_domain: "api.aws" },
    Partition {
        region_prefix: "cn-",
        domain: "amazonaws.com.cn",
        dual_stack_domain: "api.amazonwebservices.com.cn",
    },
    Partition {
        region_prefix: "eusc-",
        domain: "amazonaws.eu",
        dual_stack_domain: "api.amazonwebservices.eu",
    },
    Partition { region_prefix: "us-iso-", domain: "c2s.ic.gov", dual_stack_domain: "api.aws.ic.gov" },
    Partition { region_prefix: "us-isob-", domain: "sc2s.sgov.gov", dual_stack_domain: "api.aws.scloud" },
    Partition {
        region_prefix: "eu-isoe-",
        domain: "cloud.adc-e.uk",
        dual_stack_domain: "api.cloud-aws.adc-e.uk",
    },
    Partition {
        region_prefix: "us-isof-",
        domain: "csp.hci.ic.gov",
        dual_stack_domain: "api.aws.hci.ic.gov",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let (plain, fips) = (Variant::default(), Variant { fips: true, dual_stack: false });
        let dual_stack = Variant { fips: false, dual_stack: true };
        for (region, variant, host) in [
            ("eu-west-1", plain, "ssmmessages.eu-west-1.amazonaws.com"),
            ("us-gov-west-1", fips, "ssmmessages-fips.us-gov-west-1.amazonaws.com"),
            ("us-east-1", dual_stack, "ssmmessages.us-east-1.api.aws"),
            ("us-east-1", Variant { fips: true, dual_stack: true }, "ssmmessages-fips.us-east-1.api.aws"),
            ("cn-north-1", plain, "ssmmessages.cn-north-1.amazonaws.com.cn"),
            ("us-iso-east-1", plain, "ssmmessages.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", plain, "ssmmessages.us-isob-east-1.sc2s.sgov.gov"),
            ("us-isof-south-1", plain, "ssmmessages.us-isof-south-1.csp.hci.ic.gov"),
            ("eu-isoe-west-1", plain, "ssmmessages.eu-isoe-west-1.cloud.adc-e.uk"),
            ("eusc-de-east-1", dual_stack, "ssmmessages.eusc-de-east-1.api.amazonwebservices.eu"),
        ] {
            assert_eq!(endpoint("ssmmessages", region, variant), host);
        }
    }
}
