"""The words that decide what a sentence says about a thing that it names, for `scope`.

They follow the idea of ConText (Harkema et al. 2009, Chapman et al. 2011): cues before or after a mention that deny it,
put it in doubt or move it to another time or person, and words that end their reach. Cues for "was not observed" after
the noun, and for comparisons with an earlier examination, come from the word order of Turkish reports in translation.
All patterns are searched in the plain sentence (lower case, hyphens and slashes as blanks).
"""

import re

SEEN = (
    r"reproduced|demonstrable|observed|detected|seen|noted|noticed|found|identified|identifiable|visuali[sz]ed|"
    r"encountered|selected|present|available|evident|monitored|determined|demonstrated|revealed|recorded|"
    r"reported|remarkable|noteworthy|striking|considered|watched|viewed|visible|followed|traced|distinguished|"
    r"discriminated|recogni[sz]ed|recogni[sz]able|appreciated|depicted|shown|apparent|perceived|delineated|"
    r"discerned|discernible|detectable|confirmed|witnessed|registered|documented|discovered|disclosed|verified|"
    r"appreciable|perceptible|noticeable|traceable|manifest|in\splace|in\ssitu|there|a\sfeature|made\sout|to\sbe\sseen|in\sevidence|in\squestion|among\sthe"
)
# "not observed in the previous examination" or "not seen before" says that the thing is there now.
_EARLIER = (
    r"(?:(?:\w+\s){0,4}?(?:in|on|at|according\sto)\s(?:\w+\s){0,3}?(?:previous|prior|old|earlier|former|past|"
    r"last|first|initial|baseline|(?:19|20)\d\d|january|february|march|april|may|june|july|august|september|"
    r"october|november|december)\b|(?:\w+\s){0,2}?(?:before|previously|earlier)\b)"
)
_ELSEWHERE = r"on\s(?:the\s)?(?:radiograph|x\sray|plain\sfilm|ultrasound)\b"
_BE = r"(?:is|are|was|were|been|be|being)"
# Verbs of a clause of its own; participles ("seen in", "described") are none.
_FINITE = (
    r"(?:is|are|was|were|has|have|had|shows?|contains?|carr(?:y|ies)|remains?|occup(?:y|ies)|lies|lie|measures?|"
    r"represents?)"
)

# "No significant change", where "no emphysematous changes" is a negation.
_DEGREE = (
    r"significant|interval|appreciable|definite|obvious|relevant|major|marked|notable|clear|size|dimensional|"
    r"numerical|visible|important|further|new|measurable|considerable|substantial|evident|and|or|in|the|"
    r"additional|other|remarkable"
)

# One pass over a sentence finds all cues; the first alternative that fits at a place names the cue.
CUE = re.compile(
    rf"""
    (?: (?<!\w) | (?=n't|[;,:]) )  # every cue begins a word, or is one of these; this saves the other places
    (?:
    (?P<pseudo>
        \bno\s(?:(?:{_DEGREE})\s){{0,3}}?changes?\b
      | \bno\s(?:\w+\s){{0,3}}?(?:differences?|progression|regression|contrast|doubt|question(?!\sof)|longer\sthan|
            follow\sup|more\sthan)\b
      | \bno\s(?:\w+\s){{0,3}}?(?:increase|decrease|reduction|enlargement|growth)\s(?:\w+\s){{0,4}}?
        in\s(?:the\s|their\s|its\s)?(?:sizes?|numbers?|dimensions?|amounts?|diameters?|extent|calib\w+)\b
      | \b(?:without|lack\sof|absence\sof)\s(?:\w+\s){{0,2}}?(?:contrast|changes?|differences?|progression|growth)\b
      | \bnot\s(?:only|optimally|specific|clear(?!\sof)|exclude)\b
      | (?:\b(?:not|never|cannot)|n't)\s(?:be\s)?(?:\w+\s){{0,3}}?(?:free\s(?:of|from)|without|devoid\sof|clear\sof|
          absent)\b
      | \b(?:none|neither)\s(?:\w+\s){{0,6}}?(?:is|are)\s(?:free\s(?:of|from)|without|devoid\sof|clear\sof)\b
      | \bno\s(?:\w+\s){{1,4}}?without\b
      | (?:\b(?:not|cannot|never|nor)|n't)\s(?:\w+\s){{0,3}}?(?:excluded?|ruled?\sout)\b
      | \b(?:absence|lack)\sof\s(?:\w+\s){{1,6}}?(?:cannot|is\sincorrect)
      | \b(?:has|have)\snot\s(?:\w+\s)?(?:changed|resolved|increased|decreased|regressed|cleared|progressed|
          disappeared|grown)\b
      | \bnot\s(?:\w+\s)?(?:differ\w*|enlarged\sany|grown|significantly\sdifferent|yet\sresolved)\b
      | \bno\slonger\s(?!be\b|{SEEN}\b|exist|persist|remain|an?y?\b|evidence|enlarged|in\b|noted|can\b)
      | \bno\sneed\b
      | \bnot\s(?:the\scase|true|correct)\sthat\s(?:\w+\s){{1,5}}?(?:(?:is|are)\s(?:absent|excluded)|no|not)\b
      | \b(?:whose|its|their)\s(?:\w+\s)?(?:borders?|boundar(?:y|ies)|contours?|margins?|sizes?|dimensions?|
          relationship|relation|origin|characters?|cause|etiology|nature)
          \s(?:\w+\s){{0,4}}?(?:not|cannot)\s(?:be\s)?(?:\w+ly\s)?(?:{SEEN})\b
    )
  | (?P<neg_after>
        (?:\bnot|n't|\bcannot|\bno\slonger|\bnever)\s(?:(?:be|been|can|(?!previous|former)\w+ly|yet|
            any)\s)*(?:{SEEN})\b(?!\s(?:{_EARLIER}|{_ELSEWHERE}|from\b))
      | \bno\slonger\s(?:exists?|persists?|remains?|enlarged)\b
      | \b(?:has|have|had|did)\snot\s(?:\w+ly\s)?(?:developed?|appear(?:ed)?|formed?|occur(?:red)?|emerged?|arisen|
          recur(?:red)?)\b
      | \b(?:{SEEN})\s(?:as\s)?(?:negative|absent)\b | \b{_BE}\s(?:\w+\s)?nowhere\b
      | \bout\sof\sthe\squestion\b | \b(?:without\ssuccess|in\svain|to\sno\savail)\b
      | \bfail(?:s|ed)?\sto\s(?:appear|develop|materiali[sz]e|be\s(?:{SEEN}))\b
      | \b{_BE}\s(?:\w+ly\s|all\s|both\s|each\s)?(?:absent|excluded|ruled\sout|negative(?!\sfor)|resolved|lacking|
          disprove[dn]|refuted|dismissed|discounted|
          missing)\b(?!\s(?:{_EARLIER}|{_ELSEWHERE}))
      | \b(?:can|could|may)\sbe\s(?:\w+ly\s)?(?:excluded|ruled\sout)\b
      | \b{_BE}\snot\s(?:any\s?more|any\slonger)\b
      | \b(?:disappear(?:ed|ance)|resorbed|vanished)\b
      | \b(?:does|do|did)\snot\s(?:exist|occur|appear|persist|remain)\b
      | \b{_BE}\snot\s(?:differentiated\b(?!\sfrom)|accompanied\s*(?:$|[.;,]))
      | \b(?:complete|total|full)(?:ly)?\s(?:regress\w*|resol\w*|resorb\w*|recover\w*|disappear\w*|clear(?:ed|ing|
          ance))
    )
  | (?P<neg_before>
        \bnot\s(?:\w+ly\s)?(?=herniat|dilat|thick|enlarg|calcif|consolidat|collaps|ectat|emphysem|fractur|widen) |
        ^\W*(?:absent|not)\b | (?<=,\s)not\s(?=\w+\s*(?:$|[.;,])) |
        \bno\b(?!\s*\.)(?!\s\d)(?!\slonger\s(?:be|{SEEN})\b)
      | \b(?:free\sof|free\sfrom|clear\sof|devoid\sof|absence\sof|lack(?:s|ed)?(?:\sof)?|spared\s(?:from|of)|
          neither|nor|negative\s(?:\w+\s){{0,4}}?for|never|
          nothing(?!\s(?:but|else|except|other|new|has|changed)\b)|unable\sto\s(?:find|see|identify|detect|show|demonstrate)|
          none\sof|rather\sthan|fail(?:s|ed|ing)?\sto\s(?:show|demonstrate|reveal|find|identify|detect)|instead\sof|
          in(?:consistent|compatible)\swith|out\sof\skeeping\swith|
          cannot\s(?:see|find|identify|detect|appreciate|demonstrate|recogni[sz]e|make\sout))\b
      | \bnot\s(?:\w+ly\s)?(?:consistent|compatible|typical|suggestive|characteristic|in\s(?:favou?r|keeping)|due|
          to|accompanied|associated|complicated|followed|caused|explained|attributable|related|th(?:at|ose)\sof)\b
      | \bzero\b | \bnot\s(?:one|even|any|an?|the|have|show|contain|reveal|include|see|observe|detect|identify|find|
          note|
          demonstrate|recogni[sz]e|appreciate|visuali[sz]e|exhibit)\b
    )
  | (?P<without> \bwithout\b )
  | (?P<there> \bthere\s(?:is|are|was|were|has\sbeen|have\sbeen)\b(?!\s(?:no|not)\b) )
  | (?P<affirm>
        \b{_BE}\s(?:(?!no\b|not\b|nor\b)\w+\s){{0,2}}?(?:{SEEN})\b(?!\s{_EARLIER})(?!\snowhere)
      | \b(?:has|have)\s(?:newly\s|also\s|just\s)?(?:increased|appeared|developed|emerged|decreased|occurred)\b
      | \b(?:draws?\sattention|attracts?\sattention|is\snoteworthy|are\snoteworthy|continues?|persists?)\b
    )
  | (?P<stop>
        ;
      | \b(?:but|however)\b(?!,?\s(?:it|they|this|these)\b)(?!\snot\s)
          (?!(?<=however),?\s(?:{_FINITE}|not|cannot|can|could)\b)
      | \b(?:although|though|whereas|while|except|excepting|excluding|apart\sfrom|other\sthan|besides|in\saddition|
          aside\sfrom|save\sfor|
          despite|in\sspite\sof|exception\sof|merely|instead|the\sonly)\b
      | ,\s(?:only|just)\b
      | \b(?:nevertheless|still|yet)\b
    )
  | (?P<comma> , | : )
    )
    """,
    re.VERBOSE,
)

# A verb of its own between a comma or "and" and the mention: the negation before belongs to another clause.
NEW_CLAUSE = re.compile(
    rf"(?:,|:|\band\b)\s(?!which|that|who|whose)(?:(?!which|that\s|who\s)[^,;:])*?\b{_FINITE}\b(?!\s(?:no|not)\b)[^,;:]*$"
)
# A verb of its own after the mention and before the next clause: a negation behind that belongs to the next one.
CLAUSE_ENDS = re.compile(
    rf"^(?:(?!\b(?:which|that|who|where)\b)[^;])*?\b{_FINITE}\b(?!\s(?:no|not)\b)[^,;]*?(?:,|\band\b)\s(?!(?:{_FINITE}|not)\b)|"
    r"^[^;]*?(?:,|\band\b)\sthere\s(?:is|are|was|were)\b"
)

# Before a mention: the sentence only asks, advises or recalls it, or speaks of another person.
HISTORY = re.compile(
    r"""(?:\b(?:history|anamnesis|p?m?hx|pmh|h\so)\b(?!\sof\spresent)
      | ^\W*(?:clinical|medical|patient|relevant)\s(?:information|data|notes?|details?|history)\b
      | ^\W*(?:the\s)?patient\s(?:\w+\s)?had\b(?!\s(?:an?\s)?(?:\w+\s)?(?:ct|scan|examination|x\sray|study)\b)
      | ^\W*background\s?:
      )(?P<reach>[^;]*)$""",
    re.VERBOSE,
)
HISTORY_AFTER = re.compile(
    r"^\s(?:\w+\s)?history\b|^[^;,.]{0,40}\b(?:in\sthe\s(?:\w+\s)?(?:history|anamnesis)|as\sa\schild|in\schildhood)\b"
)
RELATIVE = re.compile(
    r"\b(?:father|mother|brother|sister|sibling|uncle|aunt|grandfather|grandmother|parent|cousin|"
    r"relative|niece|nephew|son)s?\b|"
    r"\bfamil(?:y|ial)\shistory\b|\bin\sthe\sfamily\b"
)
OPERATED_FOR = re.compile(
    r"\b(?:underwent|operated|(?:lob|pneumon|segment)ectomy|surgery|operation|treated)\b[^;.,]*?"
    r"\b(?:due to|for|because of)\s(?:\w+\s){0,3}$"
)
STATUS_POST = re.compile(r"\b(?:status\spost|s\sp|post\s(?:treatment\s)?status)\b(?P<reach>[^;,:]*)$")
STAYS = re.compile(
    r"\b(?:implant|plac(?:ed|ement)|insert|replace|reconstruct|bypass|cabg|sternotomy|stent|pacemaker|icd|"
    r"prosthe|fixation|instrumentation|port|shunt)"
)
TAKEN_OUT = re.compile(r"\b(?:remov|explant|withdraw)")  # the device is gone, which `GONE_BEFORE` reads
REASON = re.compile(r"\b(?:for|because|due|after|with\sa\shistory)\b")
CONDITION = re.compile(
    r"(?:\b(?:if|unless|in\s(?:the\s)?(?:case|event)\sof|watch\sfor|in\scase)\b(?!\sany\b)|^\W*should\b|"
    r"[,;]\sshould\b|"
    r"\bshould\s(?!be\b|not\b|have\b)|^\W*(?:had|were)\s(?:there|an?|any)\b|"
    # a rule for all patients
    r"^\W*(?:(?:all|most|some|in|for)\s)?(?:patients|persons|people|individuals|smokers|adults|those\s(?:with|who))\b)[^;,.]*$"
)
CONDITION_AFTER = re.compile(r"^[^;,.]{0,20}\bshould\sit\s(?:develop|occur|appear)")
CONCERN_AFTER = re.compile(r"^\s(?:was|is)\sthe\s(?:clinical\s)?(?:concern|question|suspicion)\b")

# Before a mention: it is not there after all.
UNLIKELY_BEFORE = re.compile(
    r"""\b(?:unlikely|improbable|doubtful|(?:low|remote)\s(?:probability|likelihood|suspicion|risk|possibility|chance)|little\s(?:to\ssuggest|
        evidence|reason)|(?:i|we)\sdoubt
      | (?:argues?|speaks?|is|are|evidence)\sagainst | less\slikely(?!\sthan)
      | (?:do|does|did)\snot\s(?:\w+\s)?(?:suggest|favou?r|support|indicate|represent|resemble|look\slike)
      | (?:rules\sout|excludes|(?<!be\s)(?<!is\s)(?<!was\s)(?<!are\s)(?<!were\s)(?<!been\s)(?<!not\s)(?:excluded|
          ruled\sout)|mimic\w*|simulat\w*|imitat\w*|mistaken\sfor|confused\swith)
      )\b(?:(?!\b(?:but|however|although|while)\b)[^;:?,(]){0,60}$
      | \bmore\s[^;,.]{3,50}\bthan\s(?:\w+\s){0,2}$""",
    re.VERBOSE,
)
UNLIKELY_AFTER = re.compile(
    r"""^(?:(?:(?!\b(?:but|although|while|whereas)\s(?:the|an?|there)\b)[^;,.(]){0,60}?\b(?:unlikely|improbable|doubtful|(?:less|least|hardly|scarcely)\s(?:likely|probable|conceivable)
        | not\s(?:\w+\s)?(?:likely|probable|suspected|favou?red|thought|expected|supported|
            considered))\b(?!\sto\sbe\s(?:absent|benign))
      | [^;,.(]{0,60}?\b(?:is|are|was|were|be|been|seems?|appears?|considered|thought|felt|deemed|
          judged)\s(?:\w+\s)?remote\b
      | ,?\s(?:is\s|was\s|has\sbeen\s)?(?:excluded|ruled\sout)\s*(?:$|[.;,]|(?:by|on)\b)
      | [^;.]{0,80}?\b(?:on|in|at)\sneither\s(?:side|lung|lobe|apex|base|hemithorax)\b
      | [^;]{0,40}?\b(?:is|seems|appears)\s(?:(?:very|quite|rather|extremely|relatively)\s)?
        (?:low|against)\b\s*(?:$|[.;,])
      | [^;,.]{0,40}?\b(?:turn(?:s|ed)\sout|prove[sd])\sto\sbe\b
      | [^;,.]{0,40}?\bnot\s(?:the|an?)\s(?:\w+\s)?(?:consideration|concern|diagnosis|cause)\b
      )""",
    re.VERBOSE,
)
APPARENT = re.compile(
    r"\b(?:apparent|seeming|alleged|so\scalled|supposed|putative)\s(?:\w+\s){0,3}$|"
    r"^\W*what\s(?:\w+\s){0,3}(?:looks?\slike|looked\slike|appears?\s(?:to\sbe|as)|appeared\s(?:to\sbe|as)|seem(?:s|ed)\s"
    r"(?:to\sbe|like)|resembles?|resembled|(?:taken|mistaken)\sfor|(?:interpreted|read|described|reported)\sas|"
    r"(?:thought|suspected)\sto\sbe)\s(?:\w+\s){0,3}$"
)

# After a mention: "none", "negative" and the like, as in a form; a minus sign has become a blank.
FORM_NEGATIVE = re.compile(
    r"""^\s*(?:\(\s\)
      | free\b(?!\s(?:of|from|in|fluid|air|gas|flow|float|layer|intra|edge|wall|margin|fragment))
      | [\w\s,]{0,60}\b(?:or|and)\b[\w\s]{0,30}:\s*(?:none|negative|absent|nil|no)\b
      | [\w\s]{0,25}(?:\(\w+\))?\s?:\s*(?:none|negative|absent|nil|not\s(?:seen|present|identified|found|detected))\b
      | ,\snone\s*(?:$|[.;])
      | [\w\s]{0,40}:\s*(?:now|currently|today)\s(?:clear|resolved|gone|normal|absent|unremarkable)\b
      | :\s*(?:[\w\s]{0,30}:\s*)?(?:none|negative|absent|no|nil|normal|unremarkable|clear|0(?!\.\d|\s?[x-]))\b
      | \s{2,}(?:none|negative|absent|no|nil)\b
      | \s(?:none|negative|absent|nil)\s*(?:$|[.;,]) )""",
    re.VERBOSE,
)

DOUBT_BEFORE = re.compile(
    r"""(?:\b(?:may|might|could|(?<!as\sfar\sas\s)can)\s(?:\w+\s){0,2}?
          (?:be|belong|represent|reflect|indicate|suggest|include|cause|have|correspond)\b
          (?!\s(?:observed|seen|evaluated|visuali[sz]ed|distinguished|excluded)\b)
      | \b(?:possible|possibly|possibility\sof|probable|probably|suspected|suspicious|suspicion|suspect|
          questionable|presumed|presumably|
          perhaps|equivocal|query|queried|likely|versus|vs|concern(?:ing)?\sfor|worrisome\sfor)\b
      | \b(?:differential|separate)\sdiagnos\w+
      | \b(?:in\sterms\sof|to\sexclude|exclude|to\srule\sout|exclusion\sof|rule\sout|r\so|whether|onset\sof|
          question\s(?:of|is)|(?:difficult|hard|impossible)\sto\s(?:exclude|rule\sout)|
          (?:cannot|not)\s(?:be\s)?(?:\w+ly\s)?(?:assessed|evaluated|judged|examined)\sfor|
          (?:cannot|can\snot|not)\s(?:\w+\s)?(?:exclude|rule\sout))\b
      | \bcorrelat\w+\s(?:\w+\s)?for\b | \b(?:evaluate|assess|investigat\w+|look|search|evaluation)\sfor\b
      | \b(?:examination|evaluation|correlation|imaging|scan|mri?|ct|views?)\s(?:is|are|
          was)\srecommended\s(?:\w+\s){0,4}?for\b
      )(?:(?!\b(?:in\sfact|in\sreality|actually)\b)[^;:?,(]){0,60}$
      | (?:^|[\s(])\?\s?(?:\w+\s){0,2}$""",
    re.VERBOSE,
)
DOUBT_AFTER = re.compile(
    r"""^(?:[^;,(.?]{0,60}?\?
      | [^;,(.?]{0,50}?\b(?:cannot|can\snot|could\snot|can't|couldn't|not|never)\s(?:\w+\s){0,2}?
        (?:excluded|ruled\sout|differentiated|discriminated)\b
      | [^;,(.?]{0,40}?\b(?:difficult|hard|impossible)\sto\s(?:exclude|rule\sout)\b
      | [^;,(.?]{0,50}?\b(?:can|should|may|might|could|must)\s(?:\w+\s)?be\s(?:\w+\s)?
        (?:considered|thought|present|included|suspected|missed|obscured|overlooked|hidden|masked|concealed)\b
      | [^;,(.?]{0,50}?\b(?:should|must|needs?\sto|has\sto)\s(?:be\s)?(?:\w+\s)?(?:excluded|ruled\sout)\b
      | [^;,(.?]{0,50}?\b(?:differential|separate)\sdiagnos
      | [^;,(.?]{0,40}?\b(?:is|are|be|was|were|seems?|appears?|remains?)\s(?:\w+ly\s)?
        (?:possible|probable|suspected|questionable|likely|conceivable|plausible|a\spossibility)\b
      | [^;,(.?]{0,40}?\b(?:cannot|can\snot|could\snot|not)\s(?:\w+\s){0,2}?(?:evaluated|assessed|judged|assessable|
          evaluable)\b
      | [^;,(.?]{0,10}?\s(?:versus|vs)\b
      | [^;,(.?]{0,30}?\bor\s(?:\w+\s){1,3}\?
      )""",
    re.VERBOSE,
)
QUESTION = re.compile(
    r"""^\W*(?:indications?|reason\s(?:for|of)|(?:clinical\s)?questions?|requests?|referred|exam(?:ination)?\srequested|
          query|rule\sout|r\so|exclude)
      \b[^;]*$""",
    re.VERBOSE,
)
# What is done about a finding says that it is there: "biopsy of the mass is recommended".
DONE_ABOUT = re.compile(
    r"""\b(?:thoracentesis|biops\w+|sampling|drainage|aspiration|puncture|follow\sup|control|surveillance|treatment|
          resection|monitoring|management)
      \b[^;.]*?\b(?:of|for)\s(?:(?!rule|exclu)\w+\s){0,7}$""",
    re.VERBOSE,
)

# Gone, taken out or healed.
_GONE = (
    r"(?:resolved|cleared|disappeared|resorbed|vanished|gone|removed|resected|excised|explanted|extubated|"
    r"withdrawn|taken\sout|pulled|evacuated|repaired|retrieved|regressed\scompletely|completely\sdrained|"
    r"drained\scompletely|returned\sto\snormal|re\s?expanded|normali[sz]ed|re\s?aerated|absorbed|subsided|discontinued|dissolved|receded|"
    r"abated)"
)
_PARTLY = (
    r"(?:not|partial(?:ly)?|partly|incomplete(?:ly)?|only|some|slight(?:ly)?|mild(?:ly)?|minimal(?:ly)?|slow(?:ly)?|"
    r"never|to\sbe|be)"
)
_PAST = r"(?:previous|prior|old|earlier|former|past|last|previously|\d{4})"
GONE_AFTER = re.compile(
    rf"""^(?:(?!\b(?:after|before|once|when)\s(?:the|its|this|that|an?)\b)[^;.]){{0,90}}?\b(?:has|have|had|is|are|was|were|been)\s(?:(?!{_PARTLY}\b)\w+\s){{0,3}}?{_GONE}\b(?!\s(?:only|in\spart|part|incompl))
      | ^[^;.]{{0,60}}\b(?:is|are)\s(?:now\s|already\s)?out\s*(?:$|[.;,])
      | ^\sremoval\b | ^[^;.]{{0,60}},\s(?:now|since|meanwhile)\s(?:\w+ly\s)?{_GONE}\b
      | ^,?\s(?:(?!{_PARTLY}\b)\w+\s){{0,2}}?
        (?:resolved|removed|cleared|disappeared|vanished|resorbed|absorbed|gone|discontinued)\b(?!\s(?:part|incompl|slow|only|in\spart))
      | ^[^;]*?\b{_PAST}\b.*?\b(?:has|have|had|be|been)\s(?:(?!{_PARTLY}\b)\w+\s){{0,2}}?regressed\b
      | \b(?:previous|prior|old|earlier|former|past)\b.*?
        \b(?:significantly|markedly|largely|nearly|almost|mostly|considerably|substantially|greatly)\s(?:\w+\s)?
        (?:regressed|resolved|resorbed|disappeared|recovered)\b
      | ^[^;,.]*\b(?:nearly|almost)\s(?:(?:completely|totally|entirely)\s)?
        (?:regressed|resolved|resorbed|disappeared)\b
      | ^[^;,.]{{0,60}}\b(?:has|have)\sregressed\b(?!\s(?:compared|according|part|slight|in\s(?:size|comparison)))""",
    re.VERBOSE,
)
GONE_BEFORE = re.compile(
    r"""(?<!partial\s)(?<!incomplete\s)(?<!slow\s)(?<!until\s)\b(?:resolution|clearing|clearance|removal|explantation|
          disappearance|evacuation|
          (?:complete|total|full)\s(?:regression|drainage))\sof\s(?:\w+\s){0,5}$
      | \b(?:nearly|almost|completely|totally|fully)\s(?:regressed|resolved|resorbed)\s(?:\w+\s){0,4}$
      | ^\W*(?:resolved|removed)\s(?:\w+\s){0,3}$
      | (?<!partially\s)(?<!partly\s)(?<!not\s)(?<!incompletely\s)(?<!has\s)(?<!have\s)(?<!had\s)
        \bresolved\s(?:(?!with|and|but|into|leaving|to|in|from|since|after)\w+\s){0,3}$""",
    re.VERBOSE,
)
REMAINS = re.compile(
    r"\b(?:continu|persist|remain|still|residual|(?:but|however)(?!,?\s(?:\w+\s){0,3}?(?:resolved|cleared|gone|removed|disappeared|resorbed))|recommended|advised|planned|considered)"
)

# Cheap tests: a sentence without any of these pieces needs none of the patterns above.
ANOTHER_TIME = (
    "histor", "anamnes", "hx", "clinical", "medical", "patient", "relevant", "background", "father", "child", "mother",
    "brother", "sister", "sibling", "uncle", "aunt", "parent", "cousin", "family", "unless", "event", "should",
    "concern", "question", "suspicion", "underwent", "operat", "ectomy", "surgery", "treated", "h o ", "post ",
    "s p ", "if ", "pmh", "niece", "nephew", "son", "relative", "familial", "had ", "were ", "persons", "people",
    "individual", "smokers", "adults", "those", "case", "watch for",
)  # fmt: skip
DENIAL = (
    "neither", "likel", "probab", "doubt", "risk", "suspicion", "suggest", "evidence", "against", "favo", "support",
    "indicat", "represent", "resemble", "exclude", "mimic", "simulat", "imitat", "mistaken", "confused",
    "suspected", "thought", "expected", "considered", "proved", "apparent", "seeming", "alleged", "little",
    "so called", "supposed", "putative", "free", "turns", "prove", "cause", "diagnos",
    "consideration", "concern", "what ", "remote", "chance", "more", "none",
    "negative", "absent", "nil", "look like", "rule", "turned out", ":", "no", "( )", "  ", " low",
    "hardly", "scarcely",
)  # fmt: skip
DOUBT = (
    "?", "may", "might", "could", "can", "must", "should", "possib", "probab", "suspec", "suspicio", "question",
    "presum", "perhaps", "equivocal", "quer", "likely", "versus", "vs", "concern", "worrisome", "differential",
    "separate", "exclu", "rul", "whether", "onset", "evaluat", "assess", "investigat", "look", "search", "correlat",
    "recommended", "indication", "reason", "request", "referred", "exam", "never", "not", "need", "in terms of",
    "r o ", "has to", "difficult", "hard", "plausible", "conceiv",
)  # fmt: skip
GONE = (
    "regress", "resol", "resor", "disappear", "remov", "clear", "vanish", "gone", "resect", "excis", "explant",
    "withdraw", "taken", "evacu", "repair", "retriev", "drain", "pulled", "normal", "expand", "absorb", "extub",
    "normali", "aerated",
    "subsid", "dissolv", "reced", "abated", " out", "discontinu",
)  # fmt: skip
