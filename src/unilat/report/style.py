"""The style sheet of the report: one column that fits a telephone, colours as variables for light and dark."""

CSS = """
:root{color-scheme:light dark;--paper:#fbfaf7;--card:#ffffff;--ink:#1b1d22;--soft:#5d6069;--line:#e2dfd7;
--measured:#0b6a86;--wanted:#bd4b12;--second:#6d4fa3;--quiet:#9a9ba1;--goal:#0b6a861f;
--serif:Charter,"Bitstream Charter","Sitka Text",Cambria,Georgia,serif;
--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
--mono:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media (prefers-color-scheme:dark){:root{--paper:#14161a;--card:#1b1e24;--ink:#e9e7e2;--soft:#a3a6ae;--line:#2e323a;
--measured:#57bfdf;--wanted:#f0935a;--second:#b79df0;--quiet:#757982;--goal:#57bfdf26}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.6 var(--sans);overflow-wrap:break-word}
main,header.top,footer{max-width:860px;margin:0 auto;padding:0 20px}
header.top{padding-top:44px}
.eyebrow{margin:0 0 14px;color:var(--soft);font-size:13.5px;letter-spacing:.02em}
h1{font:600 clamp(27px,5.4vw,42px)/1.2 var(--serif);letter-spacing:-.012em;margin:0 0 16px;text-wrap:balance}
h1 b{font-weight:600;color:var(--measured)}h1 em{font-style:normal;color:var(--wanted)}
h1 b,h1 em,.tile b,td.n{font-variant-numeric:tabular-nums}
.lead{font-size:18px;line-height:1.55;margin:0 0 22px;color:var(--ink);max-width:44em}
h2{font:600 25px/1.25 var(--serif);letter-spacing:-.01em;margin:0 0 10px}
h3{font:600 15px/1.4 var(--sans);margin:26px 0 8px}
section{padding:38px 0 0}
section>p,.how{max-width:44em}
p{margin:0 0 14px}
.how{color:var(--soft);font-size:15px}
.how strong{color:var(--ink);font-weight:600}
a{color:var(--measured);text-underline-offset:3px}
nav{border-top:1px solid var(--line);border-bottom:1px solid var(--line);margin:26px 0 0;padding:9px 0;
font-size:13.5px;line-height:1.9}
nav a{margin-right:16px;white-space:nowrap;text-decoration:none}nav a:hover{text-decoration:underline}
.notes{border-left:3px solid var(--wanted);background:var(--card);padding:12px 18px;margin:22px 0 0;font-size:15px}
.notes p{margin:0}.notes ul{margin:4px 0 0;padding-left:20px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(168px,1fr));gap:12px;margin:26px 0 0;padding:0;
list-style:none}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px 12px}
.tile span{display:block;color:var(--soft);font-size:13.5px;line-height:1.4}
.tile span:first-child{min-height:2.8em;display:flex;align-items:flex-end}
.tile b{display:block;font:600 25px/1.3 var(--sans);letter-spacing:-.015em;margin:3px 0}
.tile b small{font-size:14px;font-weight:500;color:var(--soft);letter-spacing:0}
.gauge{position:relative;height:58px;margin:6px 0 0;max-width:620px}
.gauge .track{position:absolute;left:0;right:0;top:15px;height:2px;background:var(--line)}
.gauge i{position:absolute;display:block}
.gauge .goal{top:-11px;height:24px;background:var(--goal);border-radius:3px}
.gauge .mark{left:50%;top:-14px;height:30px;width:2px;margin-left:-1px;background:var(--wanted)}
.gauge .error{top:0;height:2px;background:var(--measured);min-width:2px}
.gauge .dot{width:13px;height:13px;top:-5.5px;margin-left:-6.5px;border-radius:50%;background:var(--measured);
box-shadow:0 0 0 2.5px var(--paper)}
.gauge .end{position:absolute;top:35px;transform:translateX(-50%);font-size:12.5px;color:var(--soft);
white-space:nowrap}
table{border-collapse:collapse;width:100%;font-size:15px;margin:6px 0 16px}
th,td{text-align:left;padding:8px 14px 8px 0;border-bottom:1px solid var(--line);vertical-align:baseline}
thead th{font-size:13px;font-weight:500;color:var(--soft)}
tbody th{font-weight:500}
th.n,td.n{text-align:right;white-space:nowrap}
th:last-child,td:last-child{padding-right:0}
td.note{color:var(--soft);font-size:14px}
.figure{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px 14px;margin:14px 0}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,252px),1fr));gap:0 14px}
.legend{display:flex;flex-wrap:wrap;gap:2px 20px;list-style:none;margin:0 0 8px;padding:0;font-size:13.5px}
.legend i{display:inline-block;width:22px;height:0;border-top:2.5px solid;margin-right:8px;vertical-align:4px}
.legend i.dashes{border-top-style:dashed;border-top-width:2px}
.legend i.dots{width:8px;height:8px;border:0;border-radius:50%;background:currentColor;vertical-align:0;
margin-left:7px}
.legend i.band,.legend i.area{height:11px;border:0;background:currentColor;opacity:.22;vertical-align:-1px;
border-radius:2px}
i.measured{color:var(--measured)}i.wanted{color:var(--wanted)}i.second{color:var(--second)}i.quiet{color:var(--quiet)}
.y-label,.x-label{margin:0 0 5px;font-size:12.5px;line-height:1.4;color:var(--soft)}
.x-label{margin:26px 0 0;text-align:right}
.plot{position:relative;height:250px;margin:0 2px 0 46px}
.chart.small .plot{height:180px}
.plot svg{position:absolute;inset:0;width:100%;height:100%;overflow:hidden}
.plot .y{position:absolute;right:100%;margin-right:8px;transform:translateY(-50%);font-size:12.5px;line-height:1;
color:var(--soft);
font-variant-numeric:tabular-nums;white-space:nowrap}
.plot .x{position:absolute;top:100%;margin-top:7px;transform:translateX(-50%);font-size:12.5px;line-height:1;
color:var(--soft);
font-variant-numeric:tabular-nums;white-space:nowrap}
svg path{fill:none;vector-effect:non-scaling-stroke;stroke-linejoin:round}
svg .grid{stroke:var(--line);stroke-width:1}
svg .line{stroke-width:2}svg .dashes{stroke-width:1.8;stroke-dasharray:6 5}
svg .dots{stroke-width:7;stroke-linecap:round}
svg .fill{stroke:none;opacity:.17}
svg .measured{stroke:var(--measured)}svg .wanted{stroke:var(--wanted)}svg .second{stroke:var(--second)}
svg .quiet{stroke:var(--quiet)}
svg .fill.measured{fill:var(--measured);stroke:none}svg .fill.wanted{fill:var(--wanted);stroke:none}
svg .fill.second{fill:var(--second);stroke:none}svg .fill.quiet{fill:var(--quiet);stroke:none}
img{background:var(--line);display:block;width:100%;height:auto;image-rendering:crisp-edges;image-rendering:pixelated;
border-radius:2px}
.page img{background:none}
.strip{display:grid;grid-template-columns:136px 1fr;gap:4px 18px;align-items:center;margin:0 0 12px}
.strip:last-child{margin-bottom:4px}
.strip p{margin:0;font-size:14.5px;line-height:1.4}
.strip p small{display:block;white-space:nowrap;color:var(--soft);font-size:13px}
.under{display:grid;gap:0;text-align:center;font-size:12.5px;line-height:1.3;color:var(--soft);margin:5px 0 0}
.under span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;padding:0 2px}
.named{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:10px 26px}
.named .strip{grid-template-columns:104px 1fr;margin:0}
.maps{display:grid;grid-template-columns:1fr 150px;gap:6px 26px;align-items:start}
.mean p{margin:6px 0 0;font-size:13px;line-height:1.4;color:var(--soft)}
.scale{display:flex;align-items:center;gap:10px;font-size:13px;color:var(--soft);margin:12px 0 4px;flex-wrap:wrap}
.scale i{flex:0 1 220px;min-width:120px;height:10px;border-radius:3px}
.bars{list-style:none;margin:6px 0 18px;padding:0;font-size:14.5px;display:grid;
grid-template-columns:minmax(84px,max-content) 1fr max-content;gap:8px 16px;align-items:center}
.bars li{display:contents}
.bars .bar{height:10px;border-radius:3px;background:var(--goal)}
.bars .bar i{display:block;height:100%;min-width:2px;border-radius:3px;background:var(--measured)}
.bars .value{text-align:right;font-variant-numeric:tabular-nums}
dl{margin:0;display:grid;grid-template-columns:minmax(120px,190px) 1fr;gap:0 20px;font-size:14.5px}
dt,dd{margin:0;padding:9px 0;border-bottom:1px solid var(--line)}dt{font-weight:500}dd{color:var(--soft);min-width:0}
.plain{border:1px solid var(--line);border-left:3px solid var(--measured);background:var(--card);
border-radius:0 8px 8px 0;
padding:11px 18px;margin:14px 0 20px;max-width:none}
details{border-bottom:1px solid var(--line);padding:11px 0}
summary{cursor:pointer;font-weight:500}summary:focus-visible,a:focus-visible{outline:2px solid var(--measured);
outline-offset:3px}
details pre{overflow:auto;max-height:520px;font:12.5px/1.55 var(--mono);background:var(--card);
border:1px solid var(--line);
border-radius:8px;padding:14px 16px;margin:12px 0 4px}
details table{font-size:13.5px}details td.n{font-family:var(--mono);white-space:normal;overflow-wrap:anywhere}
details th{overflow-wrap:anywhere;font-weight:400}
footer{padding-top:40px;padding-bottom:60px;color:var(--soft);font-size:13.5px}
.wide{overflow-x:auto}
.gone{color:var(--soft);font-style:italic}
@media (max-width:600px){main,header.top,footer{padding-left:16px;padding-right:16px}header.top{padding-top:28px}
.lead{font-size:17px}h2{font-size:22px}.figure{padding:14px 12px 12px;border-radius:8px}
.strip{grid-template-columns:1fr;gap:3px;margin-bottom:14px}.strip p small{display:inline;margin-left:9px}
.named .strip{grid-template-columns:88px 1fr;margin:0}.named .strip p small{display:block;white-space:nowrap;margin:0}
.maps{grid-template-columns:1fr}.mean{display:grid;grid-template-columns:104px 1fr;gap:14px;align-items:center;
margin-top:10px}
.plot{height:200px;margin-left:40px}
dl{grid-template-columns:1fr}dt{border:0;padding-bottom:0}dd{padding-top:2px}
table.stack thead{display:none}table.stack tr{display:grid;grid-template-columns:1fr auto;gap:0 14px;padding:8px 0;
border-bottom:1px solid var(--line)}table.stack th,table.stack td{border:0;padding:0}
table.stack td.note{grid-column:1/-1}
th,td{padding-right:9px}.bars{gap:8px 10px}.tile span:first-child{min-height:0}
.tiles{grid-template-columns:repeat(2,1fr)}}
@media print{.figure,.tile{break-inside:avoid}nav{display:none}details{display:none}}
"""
