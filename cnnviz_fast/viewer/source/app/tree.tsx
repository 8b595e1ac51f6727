/* The layers as a tree by the parts of their names, and a search among them. */

import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import { capture } from "./live";
import { layerNamed, type Session } from "./session";
import { addressOf, planeOf } from "./state";

interface Node {
  /** Full name; of a group, of the part that its layers share. */
  name: string;
  /** What is written: the name behind that of the group. */
  label: string;
  depth: number;
  is_layer: boolean;
  parents: string[];
}

export function Tree({ session, names, say }: { session: Session; names: string[]; say: (text: string) => void }) {
  const [search, setSearch] = useState("");
  const [closed, setClosed] = useState<ReadonlySet<string>>(new Set());
  const { run, layer } = session;
  const nodes = useMemo(() => nodesOf(names), [names]);
  const layers = useMemo(() => new Map(run?.layers.map((each) => [each.name, each])), [run]);
  const of_planes = useMemo(() => new Set(run?.layers.map(({ name }) => planeOf(name)?.layer)), [run]);
  const wanted = search.trim().toLowerCase();
  const visible = wanted
    ? nodes
        .filter((node) => node.is_layer && node.name.toLowerCase().includes(wanted))
        .map((node) => ({ ...node, label: node.name, depth: 0 }))
    : nodes.filter((node) => !node.parents.some((parent) => closed.has(parent)));
  const has_children = new Set(wanted ? [] : nodes.flatMap((node) => node.parents.slice(-1)));
  const toggle = (name: string) => {
    const changed = new Set(closed);
    if (!changed.delete(name)) changed.add(name);
    setClosed(changed);
  };
  const choose = (node: Node) => {
    const known = node.is_layer ? layerNamed(run, node.name) : undefined;
    if (known) session.set({ layer: addressOf(known), view: null });
    else if (node.is_layer && session.catalogue.live) void capture(session, say, { and: node.name });
    else toggle(node.name);
  };
  const move = (event: KeyboardEvent, at: number) => {
    const node = visible[at]!;
    const items = (event.currentTarget as HTMLElement).parentElement!.children;
    const focus = (to: number) => (items[to] as HTMLElement | undefined)?.focus();
    const open = has_children.has(node.name) && !closed.has(node.name);
    const parent = node.parents.at(-1);
    if (event.key === "ArrowDown") focus(at + 1);
    else if (event.key === "ArrowUp") focus(at - 1);
    else if (event.key === "Home") focus(0);
    else if (event.key === "End") focus(visible.length - 1);
    else if (event.key === "ArrowRight") open || !has_children.has(node.name) ? focus(at + 1) : toggle(node.name);
    else if (event.key === "ArrowLeft")
      open ? toggle(node.name) : focus(visible.findIndex(({ name }) => name === parent));
    else if (event.key === "Enter" || event.key === " ") choose(node);
    else return;
    event.preventDefault();
  };
  const list = useRef<HTMLUListElement>(null);
  useLayoutEffect(() => {
    const chosen = list.current?.querySelector('[aria-selected="true"]');
    chosen?.scrollIntoView({ block: "nearest" });
  }, [layer?.name, search]);
  const current = Math.max(
    0,
    visible.findIndex(({ name }) => name === layer?.name),
  );
  return (
    <nav aria-label="Layers">
      <h2>Layers</h2>
      <input
        id="search"
        type="search"
        placeholder="Search layers  /"
        aria-label="Search layers"
        value={search}
        onInput={(event) => setSearch(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") (setSearch(""), event.currentTarget.blur());
          if (event.key === "Enter" && visible[0]) choose(visible[0]);
        }}
      />
      <ul ref={list} role="tree" aria-label="Layers" hidden={!visible.length}>
        {visible.map((node, i) => {
          const known = layers.get(node.name);
          const group = has_children.has(node.name);
          return (
            <li
              role="treeitem"
              key={node.name}
              dir="auto"
              title={node.name}
              tabIndex={i === current ? 0 : -1}
              aria-level={node.depth + 1}
              aria-selected={node.is_layer && node.name === layer?.name}
              aria-expanded={group ? !closed.has(node.name) : undefined}
              class={known || !node.is_layer || of_planes.has(node.name) ? "" : "absent"}
              style={{ paddingInlineStart: `${node.depth * 0.9 + 0.4}rem` }}
              onClick={() => choose(node)}
              onKeyDown={(event) => move(event, i)}
            >
              <span
                class="twist"
                aria-hidden="true"
                onClick={(event) => group && (toggle(node.name), event.stopPropagation())}
              >
                {group ? (closed.has(node.name) ? "▸" : "▾") : ""}
              </span>
              <span class="label">{node.label}</span>
              {known && <span class="soft">{known.channels}</span>}
            </li>
          );
        })}
      </ul>
      {search && !visible.length && (
        <p class="soft" role="status">
          no layer has “{search}” in its name
        </p>
      )}
    </nav>
  );
}

/** Layers with the groups they are in, each before what it holds; a group of one is left out. Of a clip or a volume a
layer is the group of its steps or planes. */
function nodesOf(names: string[]): Node[] {
  const known = new Set(names);
  const sizes = new Map<string, number>();
  const groupsOf = (name: string) => [...name.matchAll(/\.|@(?=[td]\d+$)/g)].map(({ index }) => name.slice(0, index));
  for (const name of names) for (const group of groupsOf(name)) sizes.set(group, (sizes.get(group) ?? 0) + 1);
  const nodes: Node[] = [];
  const placed = new Set<string>();
  const place = (name: string) => {
    if (placed.has(name)) return;
    placed.add(name);
    const parents = groupsOf(name).filter((group) => known.has(group) || sizes.get(group)! > 1);
    parents.forEach(place);
    const parent = parents.at(-1);
    const label = parent ? name.slice(parent.length + 1) : name;
    nodes.push({ name, label, depth: parents.length, is_layer: known.has(name), parents });
  };
  names.forEach(place);
  return nodes;
}
