// The chart: stacked bars, lines or shares over time. What it shows is in a table as well, for who cannot see it.

import {
  BarController,
  BarElement,
  CategoryScale,
  type ChartDataset,
  Chart as ChartJs,
  LinearScale,
  LineController,
  LineElement,
  PointElement,
  type Scale,
  Tooltip,
} from "chart.js";
import { useEffect, useRef, useState } from "preact/hooks";
import { approximate, axis, isMoney, ratio, share, show } from "./amount";
import { useColours } from "./hooks";
import type { ChartKind } from "./question";
import { label, type Tally } from "./series";
import { bucket, into, named, tick, type Width, type Window } from "./time";
import { said } from "./unpriced";

ChartJs.register(
  BarController,
  BarElement,
  LineController,
  LineElement,
  PointElement,
  CategoryScale,
  LinearScale,
  Tooltip,
);

const COLOURS = 12;
const TICK_PX = 84;

/** The class that gives a series its colour; what is left over is grey. */
export function colour(at: number, isRest: boolean): string {
  return isRest ? "rest" : `series-${(at % COLOURS) + 1}`;
}

function style(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

interface Shown {
  tally: Tally;
  measure: string;
  width: Width;
  kind: ChartKind;
  title: string;
  /** Looks into the buckets chosen, by a click or by a stretch drawn. */
  look?: (window: Window) => void;
}

export function Chart({ tally, measure, width, kind, title, look }: Shown) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const chart = useRef<ChartJs | null>(null);
  const colours = useColours();
  const [stretch, setStretch] = useState<[number, number] | null>(null);

  // biome-ignore lint/correctness/useExhaustiveDependencies: drawn anew when the viewer's colours change
  useEffect(() => {
    if (!canvas.current) return;
    const drawn = new ChartJs(canvas.current, configuration(tally, measure, width, kind));
    chart.current = drawn;
    return () => drawn.destroy();
  }, [kind, measure, width, colours]);

  // The same chart with other numbers: it does not flicker.
  useEffect(() => {
    if (!chart.current) return;
    const { data, options } = configuration(tally, measure, width, kind);
    chart.current.data = data;
    if (options) chart.current.options = options;
    chart.current.update("none");
  }, [tally, measure, width, kind]);

  const at = (event: PointerEvent): number | null => {
    const scale = chart.current?.scales.x;
    if (!scale || !tally.buckets.length) return null;
    const place = scale.getValueForPixel(event.offsetX) ?? 0;
    return Math.max(0, Math.min(tally.buckets.length - 1, Math.round(place)));
  };
  const isInside = ({ offsetX, offsetY }: PointerEvent) => {
    const area = chart.current?.chartArea;
    return area && offsetX >= area.left && offsetX <= area.right && offsetY >= area.top && offsetY <= area.bottom;
  };
  const begin = (event: PointerEvent) => {
    // A finger asks what a bar is; the table below leads into it. What is under the axis is no bar.
    if (!look || event.button !== 0 || event.pointerType === "touch" || !isInside(event)) return;
    const place = at(event);
    if (place === null) return;
    canvas.current?.setPointerCapture(event.pointerId);
    setStretch([place, place]);
  };
  const move = (event: PointerEvent) => {
    const place = stretch && at(event);
    if (stretch && place !== null) setStretch([stretch[0], place]);
  };
  const end = () => {
    if (!stretch) return;
    setStretch(null);
    const first = tally.buckets[Math.min(...stretch)];
    const last = tally.buckets[Math.max(...stretch)];
    if (first && last) look?.(into(first, last, width));
  };

  return (
    <div class={look ? "chart choosable" : "chart"}>
      <canvas
        ref={canvas}
        role="img"
        aria-label={`${title}: ${inWords(tally, measure)}. The table below has all numbers.`}
        onPointerDown={begin}
        onPointerMove={move}
        onPointerUp={end}
        onPointerCancel={() => setStretch(null)}
      />
      {stretch && stretch[0] !== stretch[1] && <div class="stretch" style={placed(chart.current, stretch)} />}
    </div>
  );
}

function inWords({ whole: { total, isPriced, lacking } }: Tally, measure: string): string {
  if (!lacking.size) return show(total, measure);
  return `${isPriced ? `${show(total, measure)}, and ` : ""}${said(lacking)} without a price`;
}

/** Stripes, as what has no price is drawn: it has no height. */
function stripes(shade: string): CanvasPattern | string {
  const tile = document.createElement("canvas");
  tile.width = 4;
  tile.height = 4;
  const brush = tile.getContext("2d");
  if (!brush) return shade;
  brush.fillStyle = shade;
  brush.fillRect(0, 0, 2, 4);
  return brush.createPattern(tile, "repeat") ?? shade;
}

function placed(chart: ChartJs | null, stretch: [number, number]): Record<string, string> {
  const scale = chart?.scales.x;
  if (!scale || !chart) return {};
  const half = Math.abs(scale.getPixelForValue(1) - scale.getPixelForValue(0)) / 2;
  const left = scale.getPixelForValue(Math.min(...stretch)) - half;
  const right = scale.getPixelForValue(Math.max(...stretch)) + half;
  return { left: `${left}px`, width: `${right - left}px`, height: `${chart.chartArea.bottom}px` };
}

/** How the buckets that have unpriced usage are marked: a low striped cap on their bars, a point where there are none. */
const CAP = { stack: "all", categoryPercentage: 0.86, barPercentage: 1, minBarLength: 5, clip: false as const };
const MARK = {
  order: -1,
  borderWidth: 0,
  showLine: false,
  pointRadius: 4,
  pointHitRadius: 8,
  pointStyle: "rectRot" as const,
};

function configuration(tally: Tally, measure: string, width: Width, kind: ChartKind) {
  const isLines = kind === "lines";
  const isShare = kind === "share";
  const starts = tally.buckets.map(({ start }) => start);
  const { values: sums, gaps } = tally.whole;
  const text = style("quiet");
  const grid = style("line");
  const drawn = (value: bigint, at: number) => (isShare ? ratio(value, sums[at] ?? 0n) : approximate(value, measure));
  const pointRadius = starts.length > 1 ? 0 : 3; // one point makes no line
  const isBelow = tally.series.some(({ values }) => values.some((value) => value < 0n));
  const datasets: (ChartDataset<"bar", (number | null)[]> | ChartDataset<"line", (number | null)[]>)[] = [];
  for (const [place, series] of tally.series.entries()) {
    const shade = style(colour(place, series.isRest));
    const data = series.values.map((value, at) => (series.gaps[at] && !series.priced[at] ? null : drawn(value, at)));
    const points = { label: label(series), data };
    datasets.push(
      isLines
        ? { ...points, borderColor: shade, backgroundColor: shade, borderWidth: 1.75, pointRadius, pointHitRadius: 8 }
        : { ...points, backgroundColor: shade, stack: "all", categoryPercentage: 0.86, barPercentage: 1 },
    );
  }
  if (gaps.some(Boolean)) {
    const warn = style("warn");
    const points = { label: "Unpriced", data: starts.map((_, at) => (gaps[at] ? 0 : null)) };
    datasets.push(
      isLines
        ? { ...points, ...MARK, borderColor: warn, backgroundColor: warn }
        : { ...points, ...CAP, backgroundColor: stripes(warn) },
    );
  }
  const options = {
    animation: false as const,
    responsive: true,
    maintainAspectRatio: false,
    interaction: { mode: "index" as const, intersect: false },
    scales: {
      x: {
        stacked: !isLines,
        grid: { display: false },
        border: { color: grid },
        afterBuildTicks: (scale: Scale) => {
          const most = Math.max(2, Math.floor(scale.width / TICK_PX));
          scale.ticks = named(starts, most).map((value) => ({ value }));
        },
        ticks: { color: text, maxRotation: 0, autoSkip: false },
      },
      y: {
        stacked: !isLines,
        beginAtZero: true,
        ...(isShare && !isBelow ? { max: 1 } : {}),
        grid: { color: grid },
        border: { display: false },
        ticks: {
          color: text,
          maxTicksLimit: 6,
          ...(isMoney(measure) || isShare ? {} : { precision: 0 }),
          callback: (value: string | number) =>
            isShare ? share(BigInt(Math.round(Number(value) * 1000)), 1000n) : axis(Number(value), measure),
        },
      },
    },
    plugins: {
      tooltip: {
        itemSort: (a: { datasetIndex: number }, b: { datasetIndex: number }) => a.datasetIndex - b.datasetIndex,
        filter: ({ datasetIndex, dataIndex }: { datasetIndex: number; dataIndex: number }) => {
          const series = tally.series[datasetIndex];
          return series ? series.values[dataIndex] !== 0n : Boolean(gaps[dataIndex]);
        },
        callbacks: {
          title: ([item]: { dataIndex: number }[]) => {
            const start = item && tally.buckets[item.dataIndex]?.start;
            return start === undefined ? "" : `${bucket(start, width)} UTC`;
          },
          label: ({ datasetIndex, dataIndex }: { datasetIndex: number; dataIndex: number }) => {
            const series = tally.series[datasetIndex];
            if (!series) return ` Unpriced: ${said(gaps[dataIndex] ?? new Map())}`;
            const value = series.values[dataIndex] ?? 0n;
            const part = isShare ? ` (${share(value, sums[dataIndex] ?? 0n)})` : "";
            return ` ${shortened(label(series))}: ${show(value, measure)}${part}`;
          },
          footer: ([item]: { dataIndex: number }[]) =>
            item && tally.series.length > 1 && tally.whole.priced[item.dataIndex]
              ? `Total: ${show(sums[item.dataIndex] ?? 0n, measure)}`
              : "",
        },
      },
    },
  };
  return {
    type: isLines ? ("line" as const) : ("bar" as const),
    data: { labels: starts.map((start) => tick(start, width)), datasets },
    options,
  };
}

function shortened(text: string): string {
  return text.length > 48 ? `${text.slice(0, 47)}…` : text;
}
