// Small pieces that every view is made of.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { exact, show } from "./amount";
import type { Answer } from "./hooks";

/** A number in the viewer's locale, with all its digits for machines and for who points at it. */
export function Figure({ value, measure }: { value: bigint; measure: string }) {
  const digits = exact(value, measure);
  return (
    <data value={digits} title={digits}>
      {show(value, measure)}
    </data>
  );
}

export function Problem({ error, again }: { error: Error; again?: () => void }) {
  return (
    <div class="problem" role="alert">
      <p>{error.message}</p>
      {again && (
        <button type="button" onClick={again}>
          Try again
        </button>
      )}
    </div>
  );
}

/** What is shown of an answer: itself, what is wrong, or that it is on its way; room is kept for it. */
export function Answered<Value>({
  answer,
  height,
  children,
}: {
  answer: Answer<Value>;
  height: string;
  children: (value: Value) => ComponentChildren;
}) {
  const { value, error, isLoading, again } = answer;
  return (
    <div class={isLoading && value !== undefined ? "answer stale" : "answer"} aria-busy={isLoading}>
      {error && <Problem error={error} again={again} />}
      {value !== undefined && !error && children(value)}
      {value === undefined && !error && <div class="waiting" style={{ height }} />}
    </div>
  );
}

interface Choice {
  label: string;
  value: string;
  options: readonly (readonly [string, string])[];
  onChange: (value: string) => void;
}

export function Choose({ label, value, options, onChange }: Choice) {
  return (
    <label class="field">
      <span>{label}</span>
      <select value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {options.map(([name, text]) => (
          <option key={name} value={name}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

/** A few choices side by side, of which one holds. */
export function Switch({ label, value, options, onChange }: Choice) {
  return (
    <fieldset class="switch">
      <legend>{label}</legend>
      {options.map(([name, text]) => (
        <button key={name} type="button" aria-pressed={name === value} onClick={() => onChange(name)}>
          {text}
        </button>
      ))}
    </fieldset>
  );
}

/** Copies a text; where the browser does not let a page do that, as on plain HTTP, it is shown to be copied by hand. */
export function Copy({ text, children }: { text: () => string; children: string }) {
  const [isCopied, setIsCopied] = useState(false);
  const [shown, setShown] = useState<string>();
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text());
      setIsCopied(true);
      setTimeout(() => setIsCopied(false), 2000);
    } catch {
      setShown(text());
    }
  };
  return (
    <>
      <button type="button" onClick={copy}>
        <span aria-live="polite">{isCopied ? "Copied" : children}</span>
      </button>
      {shown !== undefined && <ByHand text={shown} close={() => setShown(undefined)} />}
    </>
  );
}

function ByHand({ text, close }: { text: string; close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
    area.current?.select();
  }, []);
  return (
    <dialog ref={dialog} onClose={close} aria-label="Copy by hand">
      <form method="dialog">
        <p>The browser lets only pages that came by HTTPS copy. Here it is, to be copied by hand.</p>
        <textarea ref={area} aria-label="Text to copy" readOnly rows={Math.min(24, text.split("\n").length + 1)}>
          {text}
        </textarea>
        <p>
          <button type="submit">Close</button>
        </p>
      </form>
    </dialog>
  );
}

/** What may be wider than the screen; it can be moved by keyboard, too. */
export function Scroll({ label, isTall, children }: { label: string; isTall?: boolean; children: ComponentChildren }) {
  return (
    <section class={isTall ? "scroll tall" : "scroll"} tabindex={0} aria-label={label}>
      {children}
    </section>
  );
}
