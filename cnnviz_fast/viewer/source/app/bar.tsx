/* The head of the page: which model, run and layer, and what is taken along. */

import type { RefObject } from "preact";
import { useRef, useState } from "preact/hooks";

import { codeOf, copy, isDrawn, save, sheetOf, tableOf } from "./exports";
import { stepLayer } from "./keys";
import type { Session } from "./session";
import type { Shown } from "./shown";
import { shortName } from "./text";
import type { WallHandle } from "./wall-view";

const TOKEN = "It opens where the address with the token, which it does not hold, was opened once.";

interface Props {
  session: Session;
  shown: Shown | undefined;
  wall: RefObject<WallHandle>;
  say: (text: string) => void;
  menu: boolean;
  onMenu: () => void;
  onHelp: () => void;
}

export function Bar({ session, shown, wall, say, menu, onMenu, onHelp }: Props) {
  const { run, layer, catalogue } = session;
  const [dark, setDark] = useState(() => matchMedia("(prefers-color-scheme: dark)").matches);
  const menuOf = useRef<HTMLDetailsElement>(null);
  const token = catalogue.has_token ? TOKEN : "";
  const copied = (what: string, text: string, more = "") => copy(text).then(() => say(`${what} copied. ${more}`.trim()));
  const name = shown && `${shown.layer.name}_${shortName(shown.image.name)}`;
  const png = () =>
    sheetOf(session, shown!, () => wall.current!.pixels()).then(
      (blob) => save(`${name}.png`, blob),
      (error: Error) => say(error.message),
    );
  const turn = () => {
    document.documentElement.style.colorScheme = dark ? "light" : "dark";
    setDark(!dark);
  };
  const code = (language: "shell" | "python", name: string) => {
    const template = shown && isDrawn(session, shown) && shown.run.command?.[language];
    if (!template) return null;
    return <button onClick={() => void copied(name, codeOf(session, shown, language, template))}>Copy {name}</button>;
  };
  return (
    <header>
      <button class="icon burger" aria-label="Layers and images" aria-expanded={menu} onClick={onMenu}>
        ☰
      </button>
      <h1 dir="auto">{catalogue.title}</h1>
      {catalogue.runs.length > 1 && (
        <select
          aria-label="Run"
          value={run?.id}
          onChange={(event) => session.set({ run: Number(event.currentTarget.value), view: null })}
        >
          {catalogue.runs.map((each) => (
            <option value={each.id}>{each.name}</option>
          ))}
        </select>
      )}
      {layer && (
        <div class="row here">
          <button class="icon" aria-label="Layer before" onClick={() => stepLayer(session, -1)}>
            ‹
          </button>
          <b dir="auto">{layer.name}</b>
          <button class="icon" aria-label="Layer after" onClick={() => stepLayer(session, 1)}>
            ›
          </button>
        </div>
      )}
      <span class="room" />
      <div class="row">
        {location.protocol !== "about:" && (
          <button title={token} onClick={() => void copied("link", location.href, token)}>
            Copy link
          </button>
        )}
        {shown && (
          <details
            class="drop-down"
            ref={menuOf}
            onClick={(event) => event.target instanceof HTMLButtonElement && menuOf.current!.removeAttribute("open")}
            onKeyDown={(event) => {
              if (event.key !== "Escape" || !menuOf.current!.open) return;
              event.preventDefault(); // which keeps the channel
              menuOf.current!.open = false;
              menuOf.current!.querySelector("summary")!.focus();
            }}
          >
            <summary role="button">Take along</summary>
            <div>
              {code("shell", "command")}
              {code("python", "Python")}
              <button onClick={() => void png()}>Save PNG</button>
              <button onClick={() => save(`${name}.csv`, tableOf(shown))}>Save CSV</button>
            </div>
          </details>
        )}
        <button class="icon" aria-label={dark ? "Light colours" : "Dark colours"} onClick={turn}>
          {dark ? "☀" : "☾"}
        </button>
        <button class="icon" aria-label="Keys" onClick={onHelp}>
          ?
        </button>
      </div>
    </header>
  );
}
