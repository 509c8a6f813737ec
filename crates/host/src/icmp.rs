//! What this network namespace's settings say about ICMP errors: `icmp_ratelimit`, `icmp_ratemask`,
//! `icmp_msgs_per_sec`, `icmp_msgs_burst`, `icmp/ratelimit` and `icmp/ratemask` (ip-sysctl.rst).

use std::fs;

use rvs_core::limit::Settings;

/// Reads them. What a kernel lacks, or shows to the first namespace alone, is as nobody changed it.
pub fn icmp_settings() -> Settings {
    let mut settings = Settings::default();
    let Settings { ratelimit: [v4, v6], ratemask: [mask4, mask6], per_second, burst } =
        &mut settings;
    let numbers = [
        ("ipv4/icmp_ratelimit", v4),
        ("ipv6/icmp/ratelimit", v6),
        ("ipv4/icmp_ratemask", mask4),
        ("ipv4/icmp_msgs_per_sec", per_second),
        ("ipv4/icmp_msgs_burst", burst),
    ];
    for (name, place) in numbers {
        if let Some(number) = read(name).and_then(|text| number(&text)) {
            *place = number;
        }
    }
    if let Some(list) = read("ipv6/icmp/ratemask") {
        *mask6 = mask(&list);
    }
    settings
}

fn read(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/net/{name}")).ok()
}

/// A number; what is negative limits nothing.
fn number(text: &str) -> Option<u32> {
    let number: i64 = text.trim().parse().ok()?;
    Some(number.clamp(0, i32::MAX.into()) as u32)
}

/// Types below 32 in a list of ranges like `0-1,3-127`.
fn mask(list: &str) -> u32 {
    let mut mask = 0;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else { continue };
        (first..=last.min(31)).for_each(|kind| mask |= 1 << kind);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_types_is_a_mask_of_those_below_32() {
        let masks = ["0-1,3-127", "", "3", "1,30-255", "0-255", "200"].map(mask);
        assert_eq!(masks, [!(1 << 2), 0, 1 << 3, 0xc000_0002, u32::MAX, 0]);
    }

    #[test]
    fn a_host_that_nobody_changed_has_the_default_settings() {
        let numbers = ["1000\n", "-1", "6168", ""].map(number);
        assert_eq!(numbers, [Some(1000), Some(0), Some(6168), None]);
        assert_eq!(Settings::default().ratemask, [6168, mask("0-1,3-127")]);
    }
}
