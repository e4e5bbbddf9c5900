// All texts of the page in both languages. Names of classes and regions come with the study.

export const WORDS = {
  en: {
    ask: "Ask the map",
    other_language: "中文",
    SIMULATED: "SIMULATED",
    map: "Map. Arrow keys move it, plus and minus zoom, Enter asks the cell in the middle.",
    layers: "Layers",
    depth: "Depth",
    layer: "Layer",
    layer_type: "Type",
    layer_reference: "Type by the reference's method",
    layer_ice: "Ice content, expected",
    layer_p10: "Ice content, 10 % quantile",
    layer_p50: "Ice content, median",
    layer_p90: "Ice content, 90 % quantile",
    layer_permafrost: "Probability of permafrost",
    layer_trust: "Trust",
    layer_dissimilarity: "Dissimilarity index",
    layer_storage: "Ice in all layers",
    layer_true_type: "True type",
    layer_true_ice: "True ice content",
    opacity: "Opacity",
    compare: "Compare with",
    nothing: "nothing",
    divider: "Divider",
    legend: "Legend",
    here: "Here",
    hint: "Click the map, or enter a place.",
    longitude: "Longitude",
    latitude: "Latitude",
    go: "Ask",
    outside: "No map here.",
    place: "Place",
    coordinates: "Coordinates",
    east: "E",
    west: "W",
    north: "N",
    south: "S",
    type: "Type",
    reference: "By the reference's method",
    permafrost: "Permafrost",
    ice: "Ice content",
    range: "10–90 %",
    truth: "Truth",
    share: "Share, as a bar",
    probabilities: "Probability of each class",
    storage: "Ice in all layers",
    storage_is: "{0} m of ice",
    trust: "Trust",
    trust_lowest: "Trust, of the least sure layer",
    index_at: "Dissimilarity index {0} at {2}; above {1} no sample is like the cell.",
    index: "Dissimilarity index {0}; above {1} no sample is like the cell.",
    expectation: "Ice content: m³ of ice in m³ of the layer. Nine in ten boreholes have more than the 10 % quantile, one in ten more than the 90 % quantile.",
    area: "Total of an area",
    rectangle: "Rectangle",
    polygon: "Polygon",
    view: "What is in view",
    clear: "Clear",
    draw_rectangle: "Click two opposite corners.",
    draw_polygon: "Click the corners; click the last one twice.",
    of_area: "Area",
    of_map: "Mapped",
    volume: "Ice",
    all_layers: "all layers",
    by_class: "Area by class",
    too_small: "No centre of a cell lies in it.",
    whole: "The whole map: {0} km³ of ice, with a probability of {3} between {1} and {2} km³.",
    whole_alone: "The whole map: {0} km³ of ice.",
    no_interval: "There is no interval for a drawn area: errors of neighbouring cells go together.",
    about: "Values on this page are rounded to 0.005. The GeoTIFFs in the folder maps have all digits.",
    about_ice: "Values on this page are rounded: the expected ice content to 0.0001, all others to 0.005. The GeoTIFFs in the folder maps have all digits.",
    libraries: "Made with OpenLayers and proj4js; their licences are at the end of this file.",
    points: "Points",
    points_sites: "Sample sites",
    choose_sites: "Sample site",
    points_holes: "Where to drill next",
    choose_holes: "New hole",
    hole: "New hole {0}",
    holes_first: "new hole, number 1 first",
    left_total: "Holes 1 to {0} together lower the standard error of the total by sites by {1} at best.",
    left_dissimilarity: "Holes 1 to {0} together lower the mean dissimilarity index by {1}.",
    left_expected: "By the command drill. Costs, depths and permits are not looked at.",
    same_colours: "Colours are those of the classes.",
    hides_sites: "This study does not publish where its samples lie: no sites are shown, and the lowest tenth of the dissimilarity index is one value.",
    with_permafrost: "permafrost",
    without_permafrost: "no permafrost",
    no_class: "not known at this depth",
    site_borehole: "Borehole {0}",
    site_pit: "Test pit {0}",
    site_: "Site {0}",
    reached: "{0} m deep",
    table: "permafrost table {0} m",
    base: "permafrost base {0} m",
    found: "Found",
    part: "permafrost in {0} % of the layer",
    map_says: "map: {0}",
    site_ice: "Ice content of the whole layer, m³ m⁻³: at the site, and what the map expects, with its 10–90 % range.",
    map_there: "The map there",
    use_map: "The map was made from this site, so that they agree proves little.",
    use_test: "Held out: the map was made without this site.",
    "use_no label": "Not used for the map: it has no class in any layer.",
    "use_no data": "Not used for the map: a predictor has no data here.",
    use_outlier: "Not used for the map: a predictor has an unlikely value here.",
    use_duplicate: "Not used for the map: another site is in the same place.",
    "use_other reason": "Not used for the map.",
    profile: "Ice content against depth at {0}, with the map's; the table has the numbers.",
    profile_table: "permafrost table",
    profile_base: "permafrost base",
    profile_reached: "end of the hole",
    cores: "cores",
    unfrozen: "unfrozen",
    layer_mean: "the site, mean of the layer",
    map_expected: "the map, expected",
    map_range: "the map, 10–90 %",
    zoom_in: "Zoom in",
    zoom_out: "Zoom out",
    trust_levels: {},
  },
  zh: {
    ask: "问图",
    other_language: "English",
    SIMULATED: "SIMULATED · 模拟数据",
    map: "地图。方向键平移，加减号缩放，回车查询中心像元。",
    layers: "图层",
    depth: "深度",
    layer: "图层",
    layer_type: "地下冰类型",
    layer_reference: "地下冰类型（参考方法）",
    layer_ice: "体积含冰量（期望值）",
    layer_p10: "体积含冰量（10 % 分位数）",
    layer_p50: "体积含冰量（中位数）",
    layer_p90: "体积含冰量（90 % 分位数）",
    layer_permafrost: "多年冻土概率",
    layer_trust: "可信度",
    layer_dissimilarity: "相异指数",
    layer_storage: "各层总冰量",
    layer_true_type: "真实类型",
    layer_true_ice: "真实含冰量",
    opacity: "不透明度",
    compare: "对比图层",
    nothing: "无",
    divider: "分隔线",
    legend: "图例",
    here: "此处",
    hint: "点击地图，或输入经纬度。",
    longitude: "经度",
    latitude: "纬度",
    go: "查询",
    outside: "此处无制图结果。",
    place: "位置",
    coordinates: "坐标",
    east: "E",
    west: "W",
    north: "N",
    south: "S",
    type: "类型",
    reference: "参考方法",
    permafrost: "多年冻土",
    ice: "体积含冰量",
    range: "10–90 %",
    truth: "真值",
    share: "比例（条形）",
    probabilities: "各类型概率",
    storage: "各层总冰量",
    storage_is: "冰层总厚度 {0} m",
    trust: "可信度",
    trust_lowest: "可信度（取各层最低）",
    index_at: "{2} 相异指数 {0}；大于 {1} 时没有与该像元相似的样本。",
    index: "相异指数 {0}；大于 {1} 时没有与该像元相似的样本。",
    expectation: "体积含冰量：单位体积土层中冰的体积（m³ m⁻³）。十个钻孔中有九个高于 10 % 分位数，有一个高于 90 % 分位数。",
    area: "区域统计",
    rectangle: "矩形",
    polygon: "多边形",
    view: "当前视图范围",
    clear: "清除",
    draw_rectangle: "点击矩形的两个对角。",
    draw_polygon: "依次点击各顶点，双击结束。",
    of_area: "面积",
    of_map: "成图面积",
    volume: "地下冰储量",
    all_layers: "各层合计",
    by_class: "各类型面积",
    too_small: "范围内没有像元中心。",
    whole: "全图地下冰储量 {0} km³，{3} 区间为 {1}–{2} km³。",
    whole_alone: "全图地下冰储量 {0} km³。",
    no_interval: "所绘区域不给出区间：相邻像元的误差彼此相关。",
    about: "本页数值经过取整，步长为 0.005。完整精度见 maps 文件夹中的 GeoTIFF。",
    about_ice: "本页数值经过取整：含冰量期望值的步长为 0.0001，其余为 0.005。完整精度见 maps 文件夹中的 GeoTIFF。",
    libraries: "使用 OpenLayers 与 proj4js；许可证见本文件末尾。",
    points: "点位",
    points_sites: "样点",
    choose_sites: "样点",
    points_holes: "建议新增钻孔",
    choose_holes: "新增钻孔",
    hole: "新增钻孔 {0}",
    holes_first: "新增钻孔，按编号先后施工",
    left_total: "第 1 至 {0} 号新孔合计可使总储量（因布孔而异部分）的标准误差最多降低 {1}。",
    left_dissimilarity: "第 1 至 {0} 号新孔合计可使平均相异指数降低 {1}。",
    left_expected: "由命令 drill 给出；未考虑费用、孔深和许可。",
    same_colours: "颜色与类型图例一致。",
    hides_sites: "本研究不公开样本位置：不显示样点，相异指数最低的十分之一取同一数值。",
    with_permafrost: "多年冻土",
    without_permafrost: "非多年冻土",
    no_class: "该层类型未知",
    site_borehole: "钻孔 {0}",
    site_pit: "探坑 {0}",
    site_: "样点 {0}",
    reached: "深 {0} m",
    table: "多年冻土上限 {0} m",
    base: "多年冻土下限 {0} m",
    found: "实测类型",
    part: "该层 {0} % 为多年冻土",
    map_says: "制图：{0}",
    site_ice: "整层体积含冰量（m³ m⁻³）：样点值，以及制图期望值与其 10–90 % 区间。",
    map_there: "该处制图结果",
    use_map: "制图时使用了该样点，因此二者一致不能作为验证。",
    use_test: "留出样点：制图时未使用。",
    "use_no label": "未用于制图：各层均无类型。",
    "use_no data": "未用于制图：此处有预测因子缺少数据。",
    use_outlier: "未用于制图：此处有预测因子取值异常。",
    use_duplicate: "未用于制图：同一位置另有样点。",
    "use_other reason": "未用于制图。",
    "the hole does not reach far enough into the layer": "钻孔揭露该层的深度不足",
    "too little of the layer's permafrost was sampled": "该层多年冻土取样过少",
    "not known whether there is permafrost in the layer": "该层有无多年冻土未知",
    "depth of the permafrost table unknown": "多年冻土上限埋深未知",
    profile: "{0} 含冰量随深度的变化与制图结果，数值见上表。",
    profile_table: "多年冻土上限",
    profile_base: "多年冻土下限",
    profile_reached: "孔底",
    cores: "岩芯",
    unfrozen: "未冻结",
    layer_mean: "样点，该层平均",
    map_expected: "制图，期望值",
    map_range: "制图，10–90 %",
    zoom_in: "放大",
    zoom_out: "缩小",
    trust_levels: {
      1: ["与样本不相似", "与该像元相似的样本过少：模型在外推。"],
      2: ["有无多年冻土不确定", "有相似样本，但有无多年冻土均无把握。"],
      3: ["确有多年冻土，类型不确定", "有相似样本，多年冻土的存在有把握，类型尚不确定。"],
      4: ["确无多年冻土", "有相似样本，确无多年冻土。"],
      5: ["潜在多年冻土区之外", "位于潜在多年冻土区之外：按规则视为无多年冻土。"],
    },
  },
};

const DEPTHS = { "upper metres": { zh: "浅层" } };

export class Speech {
  constructor(language) {
    this.language = language in WORDS ? language : "en";
  }

  // Return a text, with numbers at {0}, {1}...
  say(key, ...values) {
    const text = WORDS[this.language][key] ?? WORDS.en[key] ?? key;
    return text.replace(/\{(\d)\}/g, (_, index) => values[index]);
  }

  name(names) {
    return names[this.language] ?? names.en;
  }

  depth({ title }) {
    return DEPTHS[title]?.[this.language] ?? title;
  }

  trust({ code, name, meaning }) {
    const [own, why] = WORDS[this.language].trust_levels[code] ?? [name, meaning];
    return { name: own, meaning: why };
  }

  // Return the name of a class of a legend: of types, or of trust.
  legend(one) {
    return typeof one.name === "string" ? this.trust(one).name : this.name(one.name);
  }

  number(value, digits) {
    if (!Number.isFinite(value)) return "–";
    const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    return value.toLocaleString(this.language === "zh" ? "zh-CN" : "en-GB", options);
  }

  // Return a total with three or four digits, whatever its size.
  total(value) {
    const digits = value >= 100 ? 1 : value >= 1 ? 2 : 3;
    return this.number(value, value >= 10_000 ? 0 : digits);
  }

  // Return a depth with no more digits than it has.
  metres(value) {
    return value.toLocaleString("en-GB", { maximumFractionDigits: 2 });
  }

  percent(value) {
    return `${this.number(100 * value, 1)} %`;
  }
}
