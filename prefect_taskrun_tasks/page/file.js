import { element } from "./element.js";
import { heading } from "./heading.js";
import { Timeline } from "./timeline.js";
import { instant } from "./words.js";

const picture = JSON.parse(document.getElementById("picture").textContent);
const [flowRun] = picture.flow_runs;
const place = element("main");
document.title = `${flowRun.name}: timeline`;
document.body.append(heading(flowRun, picture.taken_at, ["As of", instant(picture.taken_at)]), place);
new Timeline(place).show(picture);
