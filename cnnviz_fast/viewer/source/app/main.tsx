/* The start of the page: the catalogue is read, the application drawn into #app. */

import { render } from "preact";

import type { Catalogue } from "../catalogue";
import "../library";
import "./viewer.css";

const catalogue = JSON.parse(document.getElementById("catalogue")!.textContent!) as Catalogue;
render(<h1>{catalogue.title}</h1>, document.getElementById("app")!);
