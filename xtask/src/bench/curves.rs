//! Curves as SVG: measurements named `curves/FIGURE/SERIES/X`, on two logarithmic axes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::goals::Measured;

/// Points by series.
type Figure = BTreeMap<String, Vec<(f64, f64)>>;

const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(90, 90, 90),
];

/// The figures in what was measured.
fn figures(measured: &Measured) -> BTreeMap<String, Figure> {
    let mut figures: BTreeMap<String, Figure> = BTreeMap::new();
    for (name, nanos) in measured {
        let words: Vec<&str> = name.split('/').collect();
        let ["curves", figure, series, x] = words[..] else { continue };
        let Ok(x) = x.parse() else { continue };
        let points = figures.entry(figure.into()).or_default().entry(series.into()).or_default();
        points.push((x, *nanos));
    }
    for points in figures.values_mut().flat_map(BTreeMap::values_mut) {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    figures
}

/// Draws each figure to `cost-by-FIGURE.svg` in a folder; returns the files' names.
pub fn draw(measured: &Measured, folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (figure, series) in figures(measured) {
        let name = format!("cost-by-{figure}.svg");
        draw_one(&figure, &series, &folder.join(&name)).map_err(|e| anyhow!("{name}: {e}"))?;
        names.push(name);
    }
    Ok(names)
}

fn draw_one(figure: &str, series: &Figure, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let points = || series.values().flatten();
    let right = points().map(|point| point.0).fold(2.0, f64::max);
    let top = points().map(|point| point.1).fold(100.0, f64::max) * 1.3;
    let area = SVGBackend::new(path, (760, 440)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("ns a packet by {figure}"), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((1.0..right).log_scale(), (10.0..top).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(figure)
        .y_desc("ns a packet")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    for ((name, points), colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3);
        let key = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2));
        chart.draw_series(line)?.label(name).legend(key);
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_drawn_with_the_names_of_its_series() {
        let mut measured = Measured::new();
        for (name, value) in [("a/1", 60.0), ("a/1024", 80.0), ("b/1", 70.0)] {
            measured.insert(format!("curves/flows/{name}"), value);
        }
        measured.insert("lab/nft/1024".into(), 1.0);
        let folder = std::env::temp_dir().join(format!("rvs-curves-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let names = draw(&measured, &folder);
        let text = std::fs::read_to_string(folder.join("cost-by-flows.svg"));
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names.unwrap(), ["cost-by-flows.svg"]);
        let text = text.unwrap();
        assert!(text.starts_with("<svg") && text.contains("ns a packet by flows"), "{text}");
        assert!(text.matches("<polyline").count() >= 2, "{text}");
    }
}
