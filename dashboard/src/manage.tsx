// Manage: keys, quarantine, what has no price, and the prices in force.

import { useEffect } from "preact/hooks";
import { Keys } from "./keys";
import type { ViewProps } from "./main";
import { Prices, Unpriced } from "./prices";
import { Quarantine } from "./quarantine";

export function Manage({ address, signedIn }: ViewProps) {
  useEffect(() => {
    document.getElementById(address.hash.slice(1))?.scrollIntoView();
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
      <Unpriced />
      <Prices />
    </>
  );
}
