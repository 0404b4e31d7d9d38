// Manage: keys, quarantine, sources, what has no price, and the prices in force.

import { useEffect } from "preact/hooks";
import { Keys } from "./keys";
import type { ViewProps } from "./main";
import { Prices, Unpriced } from "./prices";
import { Quarantine } from "./quarantine";
import { Sources } from "./sources";

/** Whoever does this looks for something else. */
const MOVES = ["wheel", "touchstart", "keydown", "pointerdown"];

export function Manage({ address, signedIn }: ViewProps) {
  // What a link leads to is further down once the lists above it are there.
  useEffect(() => {
    const target = document.getElementById(address.hash.slice(1));
    const lists = document.querySelector("main");
    if (!target || !lists) return;
    const watcher = new ResizeObserver(() => target.scrollIntoView());
    const stop = () => watcher.disconnect();
    watcher.observe(lists);
    const timer = setTimeout(stop, 3000);
    for (const moved of MOVES) window.addEventListener(moved, stop, { once: true });
    return () => {
      stop();
      clearTimeout(timer);
      for (const moved of MOVES) window.removeEventListener(moved, stop);
    };
  }, [address.hash]);
  const may = (scope: string) => signedIn.scopes.includes(scope);
  return (
    <>
      <h1 tabindex={-1}>Manage</h1>
      {may("api.management") ? (
        <Keys signedIn={signedIn} />
      ) : (
        <p class="quiet">The key you signed in with may not manage keys; that takes api.management.</p>
      )}
      <Quarantine mayWrite={may("api.usage.write")} />
      <Sources />
      <Unpriced />
      <Prices />
    </>
  );
}
