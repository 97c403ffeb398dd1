package generate

// The texts below are invented. %p stands where a product may be named. They avoid words that a company is likely to
// listen for or to mute; those that a given plan touches are left out when the generator is made.

// tongue is one language to write in.
type tongue struct {
	code     string   // BCP 47, base language only
	noise    []string // everyday talk
	planted  []string // a person on a product
	company  []string // the company on a product
	greeting []string // to and from an owned account, without a product
	titles   []string // with and without a product
}

var tongues = [...]tongue{
	{
		code: "en",
		noise: []string{
			"The bus was late again and the rain came sideways.",
			"We finally repainted the kitchen, it only took three weekends.",
			"Does anybody know a quiet café near the old harbour?",
			"My sister brought her dog and now the sofa belongs to him.",
			"Forty minutes on hold, then the line went dead.",
			"Slept badly, woke early, watched the sun come up over the roofs.",
			"Grandma still writes letters by hand, four pages each.",
			"The waiting room has the same magazines as in spring.",
			"I walk along the river every evening now, rain or not.",
			"Our neighbour grows tomatoes on a balcony the size of a towel.",
			"Thank you all for the kind words yesterday, they helped.",
			"The nurse laughed at my socks, which made the morning better.",
			"Third book this month and the ending was worth it.",
			"Somebody left the window open and the cat looks guilty.",
			"I keep a diary since January, one line a day.",
			"Half the office has a cold, the other half pretends not to.",
			"They moved the appointment again, now it is in March.",
			"Write to me at kim.lune@example.org if you want the recipe.",
			"The kids built a boat out of boxes and sailed the hallway.",
			"Is it only me or do the evenings get longer?",
			"My knees tell the weather better than the radio.",
			"Took the train to the coast just to see the waves.",
			"She asked good questions and actually listened to the answers.",
			"There is soup for everyone, bring a bowl.",
			"Lost my umbrella for the fourth time this year.",
			"@mira_quill said it best, small steps still count.",
			"The pharmacy round the corner closes at noon on Wednesdays.",
			"I wish somebody had told me all this a year ago.",
		},
		planted: []string{
			"Week six on %p and I can climb the stairs again.",
			"My doctor switched me to %p last month, so far so good.",
			"Has anybody else felt dizzy in the first days of %p?",
			"Mum has been taking %p since autumn and is more like herself.",
			"We talked about %p at the ward round today, mixed feelings in the room.",
			"How do you remember to take %p when you travel?",
			"Started %p on Monday, headache until Thursday, then nothing.",
			"I prescribe %p now and then, patients mostly ask about the mornings.",
			"Honestly %p gave me back my weekends.",
			"Not sure whether it is %p or the heat, but I am tired all day.",
			"The leaflet of %p is longer than my thesis.",
			"Two years of %p and no complaints from me.",
		},
		company: []string{
			"New: a short film that explains how %p is taken.",
			"Our team answers questions about %p every Tuesday.",
			"Please read the leaflet of %p and talk to your doctor.",
		},
		greeting: []string{
			"Thank you for writing to us, we have sent you a message.",
			"Could somebody from your team please call me back?",
			"Your hotline was friendly and quick, thanks for that.",
			"I asked you three days ago and still wait for an answer.",
			"Please send us your number and we will ring you.",
		},
		titles: []string{"My month with %p", "%p and long flights", "A question for the night shift", "Small joys, week nine", "Questions about %p"},
	},
	{
		code: "de",
		noise: []string{
			"Der Bus kam wieder zu spät und der Regen von der Seite.",
			"Endlich ist die Küche gestrichen, es hat nur drei Wochenenden gedauert.",
			"Kennt jemand ein ruhiges Café am alten Hafen?",
			"Meine Schwester hat den Hund gebracht, jetzt gehört ihm das Sofa.",
			"Vierzig Minuten Warteschleife, dann war die Leitung tot.",
			"Schlecht geschlafen, früh wach, dafür ein schöner Morgen.",
			"Oma schreibt noch immer Briefe mit der Hand, vier Seiten.",
			"Im Wartezimmer liegen dieselben Hefte wie im Frühling.",
			"Ich laufe jetzt jeden Abend am Fluss entlang.",
			"Der Nachbar zieht Tomaten auf einem winzigen Balkon.",
			"Danke für die lieben Worte gestern, sie haben geholfen.",
			"Die Schwester lachte über meine Socken, das war der beste Moment.",
			"Wer das Rezept will: ruft an unter +49 30 5550123.",
			"Die Kinder haben aus Kartons ein Boot gebaut.",
			"Der Termin wurde wieder verschoben, jetzt ist er im März.",
			"Es gibt Suppe für alle, bringt eine Schüssel mit.",
		},
		planted: []string{
			"Seit sechs Wochen nehme ich %p und komme wieder die Treppe hoch.",
			"Mein Arzt hat mich auf %p umgestellt, bisher läuft es gut.",
			"Wurde euch in den ersten Tagen mit %p auch schwindlig?",
			"Meine Mutter bekommt %p seit dem Herbst und lacht wieder.",
			"Wie denkt ihr auf Reisen an %p?",
			"Montag mit %p begonnen, bis Donnerstag Kopfweh, dann nichts mehr.",
		},
		company:  []string{"Neu: ein kurzer Film erklärt, wie %p eingenommen wird.", "Bitte lesen Sie die Packungsbeilage von %p."},
		greeting: []string{"Danke für Ihre Nachricht, wir haben Ihnen geschrieben.", "Könnte mich bitte jemand zurückrufen?", "Ihre Hotline war freundlich und schnell."},
		titles:   []string{"Mein Monat mit %p", "Eine Frage an die Nachtschicht", "%p auf Reisen"},
	},
	{
		code: "fr",
		noise: []string{
			"Le bus était encore en retard et la pluie venait de côté.",
			"La cuisine est enfin repeinte, trois dimanches seulement.",
			"Quelqu'un connaît un café calme près du vieux port ?",
			"Ma sœur a amené son chien, le canapé est à lui maintenant.",
			"Quarante minutes d'attente, puis plus personne au bout du fil.",
			"Mal dormi, levée tôt, mais le matin était beau.",
			"Mamie écrit toujours ses lettres à la main.",
			"Je marche le long de la rivière tous les soirs.",
			"Le voisin fait pousser des tomates sur un balcon minuscule.",
			"Merci à tous pour vos mots d'hier, ils m'ont aidé.",
			"Les enfants ont construit un bateau avec des cartons.",
			"Il y a de la soupe pour tout le monde.",
		},
		planted: []string{
			"Six semaines sous %p et je remonte les escaliers.",
			"Mon médecin m'a passé à %p le mois dernier, tout va bien.",
			"Vous aussi, la tête qui tourne les premiers jours de %p ?",
			"Maman prend %p depuis l'automne et rit de nouveau.",
			"Commencé %p lundi, mal de tête jusqu'à jeudi.",
		},
		company:  []string{"Un petit film explique comment prendre %p.", "Lisez la notice de %p et parlez à votre médecin."},
		greeting: []string{"Merci de nous avoir écrit, nous vous avons répondu.", "Quelqu'un peut-il me rappeler ?"},
		titles:   []string{"Mon mois avec %p", "Une question pour la nuit", "%p en voyage"},
	},
	{
		code: "es",
		noise: []string{
			"El autobús llegó tarde otra vez y llovía de lado.",
			"Por fin pintamos la cocina, solo tres domingos.",
			"¿Alguien conoce un café tranquilo junto al puerto viejo?",
			"Mi hermana trajo al perro y ahora el sofá es suyo.",
			"Cuarenta minutos de espera y luego se cortó.",
			"Dormí mal, pero el amanecer fue bonito.",
			"La abuela todavía escribe cartas a mano.",
			"Camino junto al río todas las tardes.",
			"Gracias a todos por las palabras de ayer.",
			"Los niños hicieron un barco con cajas.",
			"Hay sopa para todos, traed un plato.",
		},
		planted: []string{
			"Seis semanas con %p y ya subo las escaleras.",
			"Mi doctora me cambió a %p el mes pasado, todo bien.",
			"¿También os mareasteis los primeros días con %p?",
			"Mi madre toma %p desde otoño y vuelve a reír.",
			"Empecé %p el lunes, dolor de cabeza hasta el jueves.",
		},
		company:  []string{"Un vídeo corto explica cómo se toma %p.", "Lea el prospecto de %p y hable con su médico."},
		greeting: []string{"Gracias por escribirnos, le hemos respondido.", "¿Puede alguien llamarme, por favor?"},
		titles:   []string{"Mi mes con %p", "Una pregunta para la noche", "%p de viaje"},
	},
	{
		code: "it",
		noise: []string{
			"L'autobus era di nuovo in ritardo e pioveva di traverso.",
			"Abbiamo finalmente dipinto la cucina.",
			"Qualcuno conosce un caffè tranquillo vicino al porto?",
			"Mia sorella ha portato il cane e il divano ora è suo.",
			"Quaranta minuti di attesa, poi è caduta la linea.",
			"Ho dormito male, ma l'alba era bella.",
			"La nonna scrive ancora lettere a mano.",
			"Cammino lungo il fiume ogni sera.",
			"Grazie a tutti per le parole di ieri.",
			"C'è minestra per tutti.",
		},
		planted: []string{
			"Sei settimane con %p e salgo di nuovo le scale.",
			"Il medico mi ha passato a %p il mese scorso.",
			"Anche a voi girava la testa nei primi giorni di %p?",
			"Mamma prende %p da ottobre e ride di nuovo.",
		},
		company:  []string{"Un breve filmato spiega come si prende %p."},
		greeting: []string{"Grazie per averci scritto, le abbiamo risposto.", "Qualcuno può richiamarmi?"},
		titles:   []string{"Il mio mese con %p", "Una domanda per la notte"},
	},
	{
		code: "pt",
		noise: []string{
			"O autocarro atrasou outra vez e a chuva vinha de lado.",
			"Pintámos finalmente a cozinha.",
			"Alguém conhece um café sossegado junto ao porto?",
			"A minha irmã trouxe o cão e o sofá agora é dele.",
			"Quarenta minutos à espera e caiu a chamada.",
			"Dormi mal, mas a manhã foi bonita.",
			"A avó ainda escreve cartas à mão.",
			"Ando junto ao rio todas as tardes.",
			"Há sopa para todos.",
		},
		planted: []string{
			"Seis semanas com %p e já subo as escadas.",
			"A médica mudou-me para %p no mês passado.",
			"Também sentiram tonturas nos primeiros dias de %p?",
			"A mãe toma %p desde o outono e voltou a rir.",
		},
		company:  []string{"Um pequeno filme explica como se toma %p."},
		greeting: []string{"Obrigado por nos escrever, já respondemos.", "Alguém me pode ligar?"},
		titles:   []string{"O meu mês com %p", "Uma pergunta para a noite"},
	},
	{
		code: "ja",
		noise: []string{
			"今日もバスが遅れて、雨が横から降ってきた。",
			"台所の壁をやっと塗り終えた。三週間かかった。",
			"港の近くに静かな喫茶店はありますか。",
			"妹が犬を連れてきて、ソファを取られた。",
			"よく眠れなかったけれど、朝日がきれいだった。",
			"祖母は今でも手紙を手で書く。",
			"毎晩、川沿いを歩いている。",
			"昨日の言葉、みなさんありがとう。",
			"スープがあるので、お椀を持ってきてください。",
		},
		planted: []string{
			"%p を始めて六週間、階段を上れるようになった。",
			"先月から %p に変わりました。今のところ順調です。",
			"%p の最初の数日、めまいがした人はいますか。",
			"母は秋から %p を飲んでいて、よく笑うようになった。",
		},
		company:  []string{"%p の飲み方を短い動画で説明します。"},
		greeting: []string{"ご連絡ありがとうございます。返信しました。", "どなたか電話をください。"},
		titles:   []string{"%p と過ごした一か月", "夜勤の人に質問"},
	},
}

// network is a source: how often things happen there, and what it calls them.
type network struct {
	name     string
	weight   int  // share in percent
	titled   bool // its posts have titles
	reshares bool // knows shares and reactions as events
}

var networks = [...]network{
	{"bluesky", 24, false, true},
	{"mastodon", 14, false, true},
	{"x", 20, false, true},
	{"reddit", 14, true, false},
	{"facebook", 14, false, true},
	{"youtube", 8, true, false},
	{"feeds", 6, true, false},
}

// ambient are hashtags of everyday talk.
var ambient = [...]string{"monday", "smallsteps", "eveningwalk", "ruhe", "quotidien", "paseo", "rain", "soup"}

// towns are places where nobody lives.
var towns = [...]string{"Lower Quill", "Port Amsel", "Neu Lindow", "Saint-Orme", "Villa Serena Alta", "Kita Hoshino", "Grünwarden", "Valdemora"}

// syllables make up the names of people.
var syllables = [...]string{"mi", "ra", "lo", "ken", "va", "su", "ti", "bel", "or", "ja", "nu", "pel", "ri", "do", "sha", "wen"}
