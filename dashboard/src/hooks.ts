// What views share: the address, answers of the server, the viewer's colours.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";

const MOVED = "moved";

/** Shows another view, or another question, under its own address. */
export function go(href: string): void {
  history.pushState(null, "", href);
  window.dispatchEvent(new Event(MOVED));
}

export function useAddress(): URL {
  const [href, setHref] = useState(location.href);
  useEffect(() => {
    const read = () => setHref(location.href);
    window.addEventListener("popstate", read);
    window.addEventListener(MOVED, read);
    return () => {
      window.removeEventListener("popstate", read);
      window.removeEventListener(MOVED, read);
    };
  }, []);
  return new URL(href);
}

export interface Answer<Value> {
  value: Value | undefined;
  error: Error | undefined;
  isLoading: boolean;
  again: () => void;
}

/** Asks the server whenever the key changes; what was there stays on screen until the new answer is here. */
export function useAnswer<Value>(key: string, load: (signal: AbortSignal) => Promise<Value>): Answer<Value> {
  const [state, setState] = useState<{ value?: Value; error?: Error; key?: string }>({});
  const [attempt, setAttempt] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  const asked = `${attempt} ${key}`;
  useEffect(() => {
    const controller = new AbortController();
    latest
      .current(controller.signal)
      .then((value) => setState({ value, key: asked }))
      .catch((error: Error) => {
        if (!controller.signal.aborted) setState((before) => ({ ...before, error, key: asked }));
      });
    return () => controller.abort();
  }, [asked]);
  const again = useCallback(() => setAttempt((before) => before + 1), []);
  const isLoading = state.key !== asked;
  return { value: state.value, error: isLoading ? undefined : state.error, isLoading, again };
}

const FRESH_MS = 5 * 60_000;

/** Changes every five minutes while somebody looks, and when somebody looks again after as long. */
export function useFresh(): number {
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let since = Date.now();
    const look = () => {
      if (document.hidden || Date.now() - since < FRESH_MS) return;
      since = Date.now();
      setTurn((before) => before + 1);
    };
    const timer = setInterval(look, FRESH_MS / 10);
    document.addEventListener("visibilitychange", look);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", look);
    };
  }, []);
  return turn;
}

/** Does one thing at a time: what is asked for while another is under way is left out. */
export function useOnce(): [boolean, (work: () => Promise<void>) => Promise<void>] {
  const [isUnderWay, setIsUnderWay] = useState(false);
  const underWay = useRef(false);
  const once = useCallback(async (work: () => Promise<void>) => {
    if (underWay.current) return;
    underWay.current = true;
    setIsUnderWay(true);
    try {
      await work();
    } finally {
      underWay.current = false;
      setIsUnderWay(false);
    }
  }, []);
  return [isUnderWay, once];
}

/** Counts how often the viewer's colours have changed, for what is drawn and not styled. */
export function useColours(): number {
  const [changes, setChanges] = useState(0);
  useEffect(() => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const note = () => setChanges((before) => before + 1);
    dark.addEventListener("change", note);
    return () => dark.removeEventListener("change", note);
  }, []);
  return changes;
}
