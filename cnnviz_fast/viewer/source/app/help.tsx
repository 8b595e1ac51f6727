/* The keys, in a dialog. */

import { useEffect, useRef } from "preact/hooks";

import { KEYS } from "./keys";

export function Help({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current!.showModal(), []);
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby="help-title">
      <h2 id="help-title">Keys</h2>
      <table>
        <tbody>
          {KEYS.map(([keys, meaning]) => (
            <tr>
              <th scope="row">
                {keys.split(" ").map((key) => (
                  <kbd>{key}</kbd>
                ))}
              </th>
              <td>{meaning}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <p class="soft">
        Drag to move, turn the wheel or pinch to zoom, double-click a tile to fill the view. The address names all that
        is shown.
      </p>
      <form method="dialog">
        <button autofocus>Close</button>
      </form>
    </dialog>
  );
}
