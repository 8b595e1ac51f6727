/* The start of the page: the catalogue is read, the application drawn into #app. */

import { render } from "preact";

import type { Catalogue } from "../catalogue";
import "../library";
import { App } from "./app";
import { Session } from "./session";
import "./viewer.css";

const app = document.getElementById("app")!;
try {
  const catalogue = JSON.parse(document.getElementById("catalogue")!.textContent!) as Catalogue;
  document.title = catalogue.title;
  render(<App session={new Session(catalogue)} />, app);
} catch (error) {
  app.textContent = "This page is damaged: what it says of its contents cannot be read.";
  throw error;
}
